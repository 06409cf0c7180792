"""Errors that end in one clear sentence.

Every error a person can cause is a `CviError`. Its message is one sentence that names the field, the value, what is
allowed and, where there is one, the nearest match. The command line prints the sentence and exits with `exit_code`.
"""

from __future__ import annotations


class CviError(Exception):
    """Base of all errors that say what to do about them; the command line exits with 2."""

    exit_code = 2


class ConfigError(CviError, ValueError):
    """A setting has a wrong name, type or value."""


class DataError(CviError, ValueError):
    """A data file is missing, corrupt, or not what it says it is."""


class StoreError(CviError, ValueError):
    """A run directory or its store is missing, truncated, unwritable or of an unknown schema."""


class SiteError(CviError, LookupError):
    """A site, unit or latent does not exist in the model."""


class DivergenceError(CviError, ArithmeticError):
    """Training met a value that is not finite; says the step, the loss term and the checkpoint that is kept."""

    exit_code = 3
