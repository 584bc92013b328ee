"""Turns what goes wrong while weights are read into the error that users see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagine_core.errors import UnusableModel
from imagine_core.safe_text import quoted
from imagine_plugins.loaders.configs import ConfigError
from imagine_plugins.loaders.vocabulary import VocabularyError
from imagine_plugins.loaders.weights import WeightsError


@contextmanager
def named(model: str) -> Iterator[None]:
    """Whatever keeps the model from loading becomes an `UnusableModel` with its name."""
    try:
        yield
    except (ConfigError, VocabularyError, WeightsError) as error:
        raise UnusableModel(model, str(error)) from error
    except OSError as error:
        raise UnusableModel(
            model, f"it cannot be read: {error.strerror or quoted(error)}"
        ) from error
