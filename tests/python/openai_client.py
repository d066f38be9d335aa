"""OpenAI's own client, unmodified, against all-MiniLM-L6-v2: `openai_client.py URL`."""
import sys

import numpy as np
import openai

MODEL = "all-minilm-l6-v2"
TEXTS = ["A man is eating food.", "A man is eating a piece of bread.", "The stock market fell sharply today."]


def main():
    client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
    listed = [model.id for model in client.models.list()]
    assert MODEL in listed, listed

    # Without encoding_format the client asks for base64 and decodes it.
    by_base64 = client.embeddings.create(model=MODEL, input=TEXTS)
    by_float = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert [item.index for item in by_base64.data] == [0, 1, 2] and by_base64.usage.prompt_tokens > 10
    vectors = np.array([item.embedding for item in by_base64.data])
    assert vectors.shape == (3, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
    assert np.allclose(vectors, [item.embedding for item in by_float.data], atol=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    # 0.7556 is what the original model gives for this pair.
    assert 0.74 < near < 0.78 and far < 0.2, (near, far)

    alone = client.embeddings.create(model=MODEL, input=TEXTS[0]).data[0].embedding
    assert np.allclose(alone, vectors[0], atol=1e-5), "an answer does not depend on its batch"

    try:
        client.embeddings.create(model="nope", input="x")
        raise AssertionError("an unknown model was not refused")
    except openai.NotFoundError as error:
        assert "nope" in error.message, error.message
    try:
        client.embeddings.create(model=MODEL, input=[])
        raise AssertionError("an empty input was not refused")
    except openai.BadRequestError as error:
        assert "input" in error.message, error.message


if __name__ == "__main__":
    main()
