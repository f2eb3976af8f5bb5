"""Differentially private training, an accountant of what it spends, and an audit of what it claims (docs/privacy.md).

Read the modules in this order: accountant, clipping, training, audit.
"""

from .accountant import epsilon_of as epsilon_of
from .accountant import noise_for as noise_for
from .audit import PrivacyAudit as PrivacyAudit
from .audit import check_private as check_private
from .clipping import clipped_sum as clipped_sum
from .training import PrivacyWarning as PrivacyWarning
from .training import PrivateHistory as PrivateHistory
from .training import fit_private as fit_private
