"""What a user can set: the values, the options that carry them, and the settings file."""

from imagine_core.settings.options import shared
from imagine_core.settings.values import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Limits,
    ServerSettings,
    Settings,
    default_models_folder,
)

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "Limits",
    "ServerSettings",
    "Settings",
    "default_models_folder",
    "shared",
]
