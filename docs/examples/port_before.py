"""A network and a checkpoint, as code for MindSpore has them.

    python port_before.py model.ckpt
"""

import sys

import numpy as np

import mindspore as ms
from mindspore import load_checkpoint, nn, ops
from mindspore.common.initializer import Normal
from mindspore.nn.utils import no_init_parameters


class Classifier(nn.Cell):
    """Two dense layers: (images, 784) to the probabilities of ten digits."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Dense(784, 128, weight_init=Normal(0.02))
        self.norm = nn.LayerNorm((128,))
        self.scores = nn.Dense(128, 10)

    def construct(self, x):
        return ops.softmax(self.scores(ops.relu(self.norm(self.hidden(x)))))


def main(path):
    with no_init_parameters():
        net = Classifier()
    load_checkpoint(path, net=net)
    net.set_train(False)
    images = np.linspace(-1, 1, 2 * 784, dtype=np.float32).reshape(2, 784)
    print(np.round(net(ms.Tensor(images)).asnumpy(), 4).tolist())


if __name__ == "__main__":
    main(sys.argv[1])
