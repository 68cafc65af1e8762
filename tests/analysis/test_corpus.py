import numpy as np
import pytest

from mhcnb.analysis.corpus import entropy, survey
from mhcnb.data.shardfile import Shard, ShardWriter
from mhcnb.data.tokens import Tokens


def tokens_of(folder, *parts):
    paths = [folder / f"train_{k}.bin" for k in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        with ShardWriter(path) as writer:
            writer.append(np.array(part))
    return Tokens([Shard(path) for path in paths])


def test_documents_are_measured_across_shards_and_only_whole_ones(tmp_path):
    tokens = tokens_of(tmp_path, [9, 1, 1, 9, 2], [2, 2, 9, 3])
    whole = survey(tokens, 9, 100)
    assert whole.lengths.tolist() == [3, 4, 2]
    assert whole.counts.tolist() == [0, 2, 3, 1, 0, 0, 0, 0, 0, 3]
    cut = survey(tokens, 9, 6)  # the second document is cut off
    assert (cut.lengths.tolist(), cut.seen, cut.counts.sum()) == ([3], 6, 6)
    assert survey(tokens, 7, 100).lengths.tolist() == survey(tokens, None, 100).lengths.tolist() == []


def test_what_stands_before_the_first_mark_is_no_document(tmp_path):
    assert survey(tokens_of(tmp_path, [5, 5, 9, 1]), 9, 100).lengths.tolist() == [2]


def test_entropy_of_equal_shares_is_the_logarithm_of_their_number():
    assert entropy(np.array([3, 0, 3, 3, 0, 3])) == pytest.approx(np.log(4))
    assert entropy(np.array([7, 0])) == 0
