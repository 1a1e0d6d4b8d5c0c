"""`as_tensor`: arrays are converted without loss, everything else is refused by name with the call that works."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from scoresde._core.arrays import as_tensor, as_tensors, is_array, write_npz

ARRAY = np.arange(6, dtype=np.float32).reshape(3, 2)


class Rows(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.ones(2), 0


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"])
def test_numpys_types_and_values_are_kept(kind):
    array = np.array([[0, 1], [1, 0]], dtype=kind)
    tensor = as_tensor(array, "x")
    assert str(tensor.dtype) == f"torch.{kind}"
    assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64"])
def test_wider_unsigned_integers_become_int64_without_loss(kind):
    top = min(np.iinfo(kind).max, 2**63 - 1)
    tensor = as_tensor(np.array([0, top], dtype=kind), "x")
    assert (tensor.dtype, tensor.tolist()) == (torch.int64, [0, top])


@pytest.mark.parametrize("value", [np.array([2**63], dtype=np.uint64), [2**63]])
def test_integers_that_fit_no_type_are_refused(value):
    with pytest.raises(ValueError, match=r"x must hold integers below 2\^63, got 9223372036854775808"):
        as_tensor(value, "x")


@pytest.mark.parametrize(
    "array",
    [ARRAY[::-1], ARRAY.T, ARRAY.astype(">f4"), np.broadcast_to(ARRAY[0], (3, 2)), np.ma.masked_array(ARRAY)],
    ids=["reversed", "transposed", "big-endian", "read-only", "nothing masked"],
)
def test_any_layout_is_read(array):
    assert as_tensor(array, "x").tolist() == np.asarray(array).tolist()


def test_a_memory_mapped_file_is_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", ARRAY)
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    tensor = as_tensor(array, "x")
    assert tensor.data_ptr() == array.ctypes.data
    assert tensor.tolist() == ARRAY.tolist()


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([1, 2], torch.int64, [1, 2]),
        (((0.1, 2), (3, 4)), torch.float64, [[0.1, 2], [3, 4]]),
        ([True, False], torch.bool, [True, False]),
        ([torch.ones(2), torch.zeros(2)], torch.float32, [[1, 1], [0, 0]]),
        ([ARRAY[0], ARRAY[1]], torch.float32, [[0, 1], [2, 3]]),
        (np.float32(0.5), torch.float32, 0.5),
    ],
)
def test_numbers_and_lists_of_numbers_tensors_or_arrays_are_converted(value, dtype, expected):
    tensor = as_tensor(value, "x")
    assert (tensor.dtype, tensor.tolist()) == (dtype, expected)


def test_a_tensor_is_returned_as_it_is_and_a_stacked_list_keeps_its_gradient():
    x = torch.ones(2, requires_grad=True)
    assert as_tensor(x, "x") is x
    assert as_tensor([x, x], "x").requires_grad


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (np.array(["a"]), TypeError, "x must hold real numbers of up to 64 bits, got a NumPy array of <U1; encode"),
        (np.array([None]), TypeError, "NumPy array of object; encode"),
        (np.array([1], "datetime64[s]"), TypeError, "datetime64"),
        (np.array([1j]), TypeError, "complex128; convert it"),
        (
            np.ma.masked_array([1.0, 2.0], [False, True]),
            ValueError,
            r"a masked array; drop or fill them: x.filled\(value\)",
        ),
        ([[1], [2, 3]], ValueError, "x must hold rows of numbers of one length, got a list whose rows differ"),
        ([torch.ones(1), torch.ones(2)], ValueError, r"events of one shape and type, got shapes \[\(1,\), \(2,\)\]"),
        ([torch.ones(1, requires_grad=True), "a"], ValueError, "rows of numbers"),
        (["a", 1], TypeError, "got a list with a str; encode it"),
        ([None, 1.0], TypeError, "got a list with a NoneType"),
        ([2**70], TypeError, "number of more than 64 bits"),
        ("runs/x", TypeError, r"got the path 'runs/x'; read it first: sd.load_data\(path\).train"),
        (None, TypeError, r"got None; pass a batch of events, \(N, \*D\)"),
        (3, TypeError, "got 3; pass a batch"),
        (torch.Tensor, TypeError, "got the class Tensor"),
        ({"a": 1}, TypeError, "got a dict; pass a tensor"),
        (DataLoader(Rows()), TypeError, r"got a DataLoader; .*torch.cat\(\[x for x, \*_ in loader\]\)"),
        (TensorDataset(torch.ones(2)), TypeError, r"got a TensorDataset; pass its tensor: dataset.tensors\[0\]"),
        (Rows(), TypeError, r"got a Rows; .*torch.stack\(\[x for x, \*_ in dataset\]\)"),
    ],
)
def test_anything_else_is_refused_by_name_with_the_call_that_works(value, error, text):
    with pytest.raises(error, match=text):
        as_tensor(value, "x")


def test_conditioning_is_converted_where_it_is_an_array():
    network = object()
    converted: Any = as_tensors({"a": ARRAY, "b": [1, 2], "c": None, "d": 2.0, "e": ["text"], "f": network})
    assert converted["a"].dtype == torch.float32
    assert converted["b"].tolist() == [1, 2]
    assert (converted["c"], converted["d"], converted["e"], converted["f"]) == (None, 2.0, ["text"], network)
    assert not is_array([])


def test_frames_of_numbers_are_converted_and_others_refused_by_column():
    pd = pytest.importorskip("pandas")
    same = as_tensor(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), "x")
    assert (same.dtype, same.tolist()) == (torch.int64, [[1, 3], [2, 4]])
    mixed = as_tensor(pd.DataFrame({"a": [1, 2], "b": [0.5, 4]}), "x")
    assert (mixed.dtype, mixed.tolist()) == (torch.float64, [[1, 0.5], [2, 4]])
    assert as_tensor(pd.Series([1, 2], name="a"), "x").tolist() == [1, 2]
    assert as_tensor(pd.DataFrame({"a": pd.array([1, 2], dtype="Int64")}), "x").dtype == torch.int64
    assert as_tensor(pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), "x").isnan().tolist() == [[False], [True]]
    with pytest.raises(TypeError, match="columns of numbers, got 'city' .*select_dtypes"):
        as_tensor(pd.DataFrame({"city": ["a"], "b": [1]}), "x")
    with pytest.raises(ValueError, match=r"fit one type, got integers up to 4.61169e\+18 in column 'a'"):
        as_tensor(pd.DataFrame({"a": [2**62 + 1, 1], "b": [0.5, 1]}), "x")


def test_an_npz_file_holds_the_arrays_alone_and_never_python_objects(tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        write_npz(file, {"x": np.arange(3.0), "names": np.array(["a", "b"])})
    with np.load(tmp_path / "x.npz", allow_pickle=False) as back:
        assert sorted(back.files) == ["names", "x"]
        assert back["names"].tolist() == ["a", "b"]
    with (tmp_path / "y.npz").open("wb") as file, pytest.raises(TypeError, match="x must hold numbers or texts"):
        write_npz(file, {"x": np.array([{}, []], dtype=object)})
