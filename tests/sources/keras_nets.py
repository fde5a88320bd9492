"""Functions that make Keras models, with a layer of the user's own among them. Needs Keras and torch."""

from __future__ import annotations

import keras
from keras import layers


@keras.saving.register_keras_serializable(package="tests")
class Doubled(layers.Layer):
    def call(self, inputs):
        return inputs * 2


def dense():
    return keras.Sequential(
        [
            keras.Input((20,), name="features"),
            layers.Dense(10, activation="relu"),
            layers.Dense(1, activation="sigmoid", name="probability"),
        ]
    )


def image_net():
    """Channels last, statistics of BatchNormalization that are not those of a batch, a dropout."""
    norm = layers.BatchNormalization()
    net = keras.Sequential(
        [
            keras.Input((8, 10, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same"),
            norm,
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(5),
        ]
    )
    norm.moving_mean.assign([0.5, -0.5, 1.0, 0.0])
    norm.moving_variance.assign([2.0, 0.5, 1.0, 3.0])
    return net


def two_inputs():
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    both = layers.Add()([layers.Dense(8)(left), layers.Dense(8)(right)])
    outputs = {"sum": layers.Dense(2)(both), "gate": layers.Dense(1, activation="sigmoid")(both)}
    return keras.Model({"left": left, "right": right}, outputs)


def attention():
    ids = keras.Input((None,), dtype="int32", name="ids")
    hidden = layers.Embedding(50, 16)(ids)
    hidden = layers.LayerNormalization()(hidden + layers.MultiHeadAttention(2, 8)(hidden, hidden))
    return keras.Model(ids, layers.Dense(3, name="scores")(layers.GlobalAveragePooling1D()(hidden)))


def recurrent():
    return keras.Sequential([keras.Input((None, 4)), layers.LSTM(6), layers.Dense(2)])


def with_own_layer():
    return keras.Sequential([keras.Input((4,)), Doubled()])


def subclassed():
    class Net(keras.Model):
        def call(self, inputs):
            return inputs

    return Net()


def with_lambda():
    return keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x + 1)])
