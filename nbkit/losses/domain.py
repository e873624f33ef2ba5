r"""Losses of the comparison methods: on a domain classifier's logits, and discrepancies of domains.

DANN: Ganin et al., JMLR 2016; entropies: TA3N, Chen et al., ICCV 2019. A domain classifier gives
one logit x; the probability of "target" is sigmoid(x). Two logits and a softmax, as some public
codes have it, are the same with x their difference. Discrepancies: DAN (Long et al., ICML 2015)
compares kernel means, MCD (Saito et al., CVPR 2018) two classifiers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nbkit.errors import NbkitError
from nbkit.losses.adversarial import gradient_reversal
from nbkit.losses.alignment import gaussian_mixture_kernel, squared_distances


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


# --- discrepancies of domains --------------------------------------------------------------------
def mk_mmd(source: Tensor, target: Tensor) -> Tensor:
    r"""Squared distance of the kernel means of two samples, with five Gaussian kernels (DAN).

    $$\hat D_k^2 = \frac{1}{n_s^2} \sum_{i,j} k(x_i^s, x_j^s) + \frac{1}{n_t^2} \sum_{i,j} k(x_i^t,
    x_j^t)
    - \frac{2}{n_s n_t} \sum_{i,j} k(x_i^s, x_j^t), \qquad
    k(a, b) = \sum_{u=1}^{5} \exp\left(-\frac{\|a - b\|^2}{\gamma_u}\right)$$

    Shapes: source (n_s, D), target (n_t, D) -> scalar in [0, 10]; the sizes may differ. The
    bandwidths are powers of 2 around the mean squared distance of all pairs of different samples
    of both domains, held constant for the gradient: those of TA3N's public code. The kernels weigh
    the same, where DAN can also learn their weights. The biased estimator (pairs i = j count) is
    zero for equal samples and never negative. Raises NbkitError for a domain without samples.
    """
    ns, nt = len(source), len(target)
    if ns == 0 or nt == 0:
        raise NbkitError(
            "mk_mmd: a batch needs at least one video of each domain "
            f"(got {ns} source, {nt} target)"
        )
    both = torch.cat([source, target])  # (n, D)
    d2 = squared_distances(both, both)  # (n, n)
    gamma = d2.detach().sum() / ((ns + nt) * (ns + nt - 1))  # the diagonal adds nothing
    k = gaussian_mixture_kernel(d2, gamma)  # (n, n)
    return k[:ns, :ns].mean() + k[ns:, ns:].mean() - 2 * k[:ns, ns:].mean()


def classifier_discrepancy(logits1: Tensor, logits2: Tensor) -> Tensor:
    r"""Mean absolute difference of two classifiers' probabilities (MCD).

    $$d(p_1, p_2) = \frac{1}{C} \sum_{c=1}^{C} |p_{1c} - p_{2c}|$$

    Shapes: logits1, logits2 (B, C) -> scalar in [0, 2 / C], the mean over the batch.
    """
    return (logits1.softmax(-1) - logits2.softmax(-1)).abs().mean()
