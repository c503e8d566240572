from pathlib import Path

import pytest

from zoo.errors import ContractError, InputError
from zoo.orca.data.image import DType, FeatureType, ParquetDataset, SchemaField
from zoo.orca.data.image.layout.dataset_folder import DatasetFolder, open_dataset
from zoo.orca.data.image.reading.row_reader import iter_tables
from zoo.orca.data.image.reading.share import say_unused, share_of

SCHEMA = {"x": SchemaField(FeatureType.SCALAR, DType.INT32, ())}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    """Five chunks: four of five rows and one of three."""
    path = tmp_path_factory.mktemp("share") / "out"
    ParquetDataset.write(str(path), ({"x": x} for x in range(23)), SCHEMA, block_size=5)
    return open_dataset(path)


def numbers(dataset: DatasetFolder, **config: object) -> list[int]:
    return [x for table in iter_tables(share_of(dataset, config)) for x in table["x"].to_pylist()]


def test_without_a_config_everything(dataset: DatasetFolder) -> None:
    assert numbers(dataset) == list(range(23))
    assert share_of(dataset).rows == 23


@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_a_reader_takes_the_chunks_of_its_remainder(
    dataset: DatasetFolder, num_shards: int
) -> None:
    for rank in range(num_shards):
        expected = [x for x in range(23) if x // 5 % num_shards == rank]
        assert numbers(dataset, num_shards=num_shards, rank=rank) == expected


@pytest.mark.parametrize("num_shards", [1, 2, 3, 5, 7, 23, 40])
def test_equal_rows_for_any_number_of_readers(dataset: DatasetFolder, num_shards: int) -> None:
    config = {"num_shards": num_shards, "balance": "rows"}
    shares = [numbers(dataset, **config, rank=rank) for rank in range(num_shards)]
    assert [x for share in shares for x in share] == list(range(23))
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1


def test_num_shards_above_the_number_of_chunks_is_an_assertion_error(
    dataset: DatasetFolder,
) -> None:
    with pytest.raises(AssertionError, match="number of chunks, 5"):
        share_of(dataset, {"num_shards": 6, "rank": 0})


@pytest.mark.parametrize("rank", [2, 3, -1])
def test_rank_beyond_num_shards_is_an_assertion_error(dataset: DatasetFolder, rank: int) -> None:
    with pytest.raises(AssertionError, match="rank from 0 to 1"):
        share_of(dataset, {"num_shards": 2, "rank": rank})


@pytest.mark.parametrize("config", [{"num_shards": 2}, {"rank": 0}])
def test_half_a_setting(dataset: DatasetFolder, config: dict[str, int]) -> None:
    with pytest.raises(ContractError, match="alone"):
        share_of(dataset, config)


@pytest.mark.parametrize("config", [{"num_shards": "2", "rank": 0}, {"num_shards": 2, "rank": 0.5}])
def test_settings_that_are_no_numbers(dataset: DatasetFolder, config: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="as an int"):
        share_of(dataset, config)


def test_unknown_balance(dataset: DatasetFolder) -> None:
    with pytest.raises(InputError, match="bytes"):
        share_of(dataset, {"balance": "bytes"})


def test_rows_need_a_reader_at_least(dataset: DatasetFolder) -> None:
    with pytest.raises(ContractError, match="num_shards from 1"):
        share_of(dataset, {"num_shards": 0, "rank": 0, "balance": "rows"})


def test_chunks_without_rows_are_passed_over(tmp_path: Path, dataset: DatasetFolder) -> None:
    share = share_of(dataset, {"num_shards": 40, "rank": 0, "balance": "rows"})
    assert (share.rows, share.stretches) == (0, ())
    assert list(iter_tables(share)) == []


def test_the_config_of_a_data_creator_says_which_rows(
    dataset: DatasetFolder, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"size": 7, "lr": 0.1}
    shares = [numbers(dataset, **config, rank=rank) for rank in range(7)]
    assert [x for share in shares for x in share] == list(range(23))
    say_unused({**config, "rank": 0})
    assert not caplog.messages
