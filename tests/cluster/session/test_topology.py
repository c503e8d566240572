import pytest

from zoo.cluster.session.topology import address_toward
from zoo.errors import InputError


def test_address_toward_a_master_on_this_machine() -> None:
    assert address_toward("spark://127.0.0.1:7077") == "127.0.0.1"


def test_bad_master_is_refused() -> None:
    with pytest.raises(InputError, match="spark://host:port"):
        address_toward("yarn")
