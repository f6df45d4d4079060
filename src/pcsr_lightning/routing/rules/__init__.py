"""The rules, one a file. A new one is registered by a line here."""

from pcsr_lightning.routing.rules.adaptive import Adaptive as Adaptive
from pcsr_lightning.routing.rules.budget import Budget as Budget
from pcsr_lightning.routing.rules.by_k import ByK as ByK
from pcsr_lightning.routing.rules.fixed_class import FixedClass as FixedClass
from pcsr_lightning.routing.rules.quantile import Quantile as Quantile
from pcsr_lightning.routing.rules.seconds import Seconds as Seconds
