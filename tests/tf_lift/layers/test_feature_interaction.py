"""Pairwise products of fields, eq. 16."""

import itertools

import numpy as np

from tf_lift.layers.feature_interaction import FieldProducts


def test_products_are_those_of_all_pairs() -> None:
    embedded = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    products = FieldProducts()(embedded).numpy()
    assert products.shape == (2, 3, 6)
    for batch, candidate in np.ndindex(2, 3):
        fields = embedded[batch, candidate]
        expected = [float(fields[i] @ fields[j]) for j, i in itertools.combinations(range(4), 2)]
        np.testing.assert_allclose(sorted(products[batch, candidate]), sorted(expected), rtol=1e-5)


def test_same_answer_from_config() -> None:
    embedded = np.random.default_rng(1).normal(size=(1, 2, 3, 4)).astype(np.float32)
    layer = FieldProducts(name="products")
    copied = FieldProducts.from_config(layer.get_config())
    np.testing.assert_array_equal(copied(embedded), layer(embedded))
    assert copied.name == "products"
