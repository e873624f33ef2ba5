r"""Losses on a domain classifier's logits: DANN and the comparison methods that extend it.

DANN: Ganin et al., JMLR 2016; entropies: TA3N, Chen et al., ICCV 2019. A domain classifier gives
one logit x; the probability of "target" is sigmoid(x). Two logits and a softmax, as some public
codes have it, are the same with x their difference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from nbkit.losses.adversarial import gradient_reversal


def domain_loss(source: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy of the domain classifier, both domains weighing the same (DANN).

    $$\mathcal{L}_d = -\tfrac{1}{2} \left(\mathbb{E}_{x^s} \log(1 - \hat d) + \mathbb{E}_{x^t} \log
    \hat d\right)$$

    Shapes: source and target logits of any shape -> scalar >= 0; log 2 when the classifier cannot
    tell.
    """
    return (F.softplus(source).mean() + F.softplus(-target).mean()) / 2


def adversary(
    classifier: Callable[[Tensor], Tensor], source: Tensor, target: Tensor, reversal: float
) -> Tensor:
    """`domain_loss` of features (..., D) behind gradient reversal of that strength.

    The classifier learns the domains, and the features unlearn them.
    """
    return domain_loss(
        classifier(gradient_reversal(source, reversal)),
        classifier(gradient_reversal(target, reversal)),
    )


def domain_entropy(logit: Tensor) -> Tensor:
    r"""Entropy of the predicted domain, elementwise, in [0, log 2].

    $$H(\hat d) = -\hat d \log \hat d - (1 - \hat d) \log(1 - \hat d)$$
    """
    return F.softplus(logit) - logit * logit.sigmoid()


def domain_attention(logit: Tensor) -> Tensor:
    r"""Weight of a feature whose domain shows, $w = 1 - H(\hat d)$, in [1 - log 2, 1] (TA3N).

    The attended feature is $(1 + w) f$: what still tells the domains apart counts for more, and is
    aligned first.
    """
    return 1 - domain_entropy(logit)


def class_entropy(logits: Tensor) -> Tensor:
    r"""Entropy of the predicted class. Shapes: (..., C) -> (...), in [0, log C].

    $$H(\hat y) = -\sum_c \hat y_c \log \hat y_c$$
    """
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def attentive_entropy(class_logits: Tensor, domain_logit: Tensor) -> Tensor:
    r"""Certain predictions, above all for videos whose domain is unclear (TA3N).

    $$\mathcal{L}_{ae} = \mathbb{E}_x \left[(1 + H(\hat d)) \, H(\hat y)\right]$$

    Shapes: class_logits (B, C), domain_logit (B,) of the videos of both domains -> scalar in
    [0, (1 + log 2) log C]. Gradients reach the domain classifier too, as in the public code.
    """
    return ((1 + domain_entropy(domain_logit)) * class_entropy(class_logits)).mean()


def correspondence_loss(matching: Tensor, other: Tensor) -> Tensor:
    r"""Do RGB and flow come from the same clip? MM-SADA (Munro and Damen, CVPR 2020).

    $$\mathcal{L}_c = -\tfrac{1}{2} \left(\mathbb{E}_{+} \log \hat c + \mathbb{E}_{-} \log(1 - \hat
    c)\right)$$

    Shapes: logits of "same clip" for pairs that match and pairs that do not, any shape -> scalar
    >= 0.
    """
    return domain_loss(other, matching)  # the same two-class cross-entropy


def order_loss(logits: Tensor, order: Tensor) -> Tensor:
    """Cross-entropy of the predicted order of shuffled clips.

    Shapes: logits (B, P), order (B,) in 0..P-1 -> scalar. Clip-order prediction: Xu et al., CVPR
    2019; as an auxiliary task of adaptation: SAVA (Choi et al., ECCV 2020).
    """
    return F.cross_entropy(logits, order)
