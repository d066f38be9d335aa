"""NVIDIA's own HTTP client, unmodified, against the example's digits model: `triton_client.py HOST:PORT ROWS.csv`."""
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def rows(path, count):
    """The first images with their labels."""
    lines = [line for line in open(path, encoding="utf-8") if line.strip() and not line.startswith("#")][:count]
    table = np.array([[float(cell) for cell in line.split(",")] for line in lines], dtype=np.float32)
    return table[:, 0].astype(int), np.ascontiguousarray(table[:, 1:])


def infer(client, images, binary, **more):
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
    return client.infer("digits", [tensor], outputs=wanted, **more)


def refused(call, *words):
    try:
        call()
    except InferenceServerException as error:
        assert all(word in error.message() for word in words), error.message()
        return
    raise AssertionError(f"not refused: {words}")


def main():
    client = triton.InferenceServerClient(sys.argv[1], concurrency=8)
    labels, images = rows(sys.argv[2], 16)
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()["name"] == "tidegate"
    metadata = client.get_model_metadata("digits")
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}], metadata
    assert metadata["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}], metadata

    by_binary = infer(client, images, binary=True, request_id="seven")
    by_json = infer(client, images, binary=False)
    for answer in (by_binary, by_json):
        found = answer.as_numpy("probabilities")
        assert found.shape == (16, 10) and (found.argmax(axis=1) == labels).all(), found
    assert np.allclose(by_binary.as_numpy("probabilities"), by_json.as_numpy("probabilities"), atol=1e-5)
    assert by_binary.get_response()["id"] == "seven" and by_binary.get_response()["model_name"] == "digits"
    assert client.is_model_ready("digits"), "it has just answered"

    # Sixteen at once: each gets its own row back, whichever batch it was in.
    def tensor_of(i):
        tensor = triton.InferInput("image", [1, 64], "FP32")
        tensor.set_data_from_numpy(images[i : i + 1])
        return tensor

    waiting = [client.async_infer("digits", [tensor_of(i)]) for i in range(16)]
    for label, request in zip(labels, waiting):
        assert request.get_result().as_numpy("probabilities").argmax() == label

    compressed = dict(request_compression_algorithm="gzip")
    refused(lambda: infer(client, images, True, **compressed), "Content-Encoding")
    refused(lambda: infer(client, images[:, :63].copy(), True), "unexpected shape for input 'image'")
    refused(lambda: client.get_model_metadata("nope"), "Request for unknown model: 'nope' is not found")
    refused(lambda: client.infer("nope", [tensor_of(0)]), "Request for unknown model: 'nope' is not found")
    client.close()


if __name__ == "__main__":
    main()
