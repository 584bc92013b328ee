"""The text of the systemd unit that runs `imagine serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from imagine_core.errors import SettingsError

NAME = "imagine.service"
MARK = "# Written by 'imagine service install', which may replace it."

UNIT = """\
{mark}
# Change it with 'systemctl {edit} imagine'; that is kept apart, and stays.

[Unit]
Description=Imagine: Stable Diffusion over HTTP
{after}
[Service]
# Imagine says itself when it serves, and on what: 'systemctl {status} imagine' shows it.
Type=notify
ExecStart={command}
{account}\
Restart=on-failure
RestartSec=5s
# A flag that cannot be is no better the second time.
RestartPreventExitStatus=2
TimeoutStartSec=5min
LimitNOFILE=65536

# IMAGINE_API_KEY=... and the like, in a file that only its owner can read.
EnvironmentFile=-%E/imagine/environment
# The only place that can be written to: what a single executable unpacks, what CUDA compiles.
CacheDirectory=imagine
Environment=XDG_CACHE_HOME=%C CUDA_CACHE_PATH=%C/imagine/cuda

NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
{system}\
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
# Left out on purpose: PrivateDevices and ProtectClock take the GPU away (the latter by the list
# of devices that comes with it), MemoryDenyWriteExecute what compiles kernels at run time.

[Install]
WantedBy={target}
"""

SYSTEM = """\
ProtectHome=read-only
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
CapabilityBoundingSet=
RemoveIPC=yes
"""

DYNAMIC = """\
# An account that exists while the service runs; its models are in /var/lib/imagine/models.
DynamicUser=yes
StateDirectory=imagine imagine/models
Environment=HOME=%S/imagine IMAGINE_MODELS=%S/imagine/models
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A service.

    Attributes:
        command: The program and its arguments.
        scope: One user's, or the system's.
        account: The system service's user; None for one of its own.
    """

    command: Sequence[str]
    scope: Literal["user", "system"] = "user"
    account: str | None = None

    def text(self) -> str:
        """The unit file."""
        system = self.scope == "system"
        flag = "" if system else "--user "
        return UNIT.format(
            mark=MARK,
            edit=f"{flag}edit",
            status=f"{flag}status",
            # Only the system's services can wait until the network is set up.
            after="After=network.target\n" if system else "",
            command=" ".join(map(quoted, self.command)),
            account=self._account() if system else "",
            system=SYSTEM if system else "",
            target="multi-user.target" if system else "default.target",
        )

    def _account(self) -> str:
        if self.account is None:
            return DYNAMIC
        if not self.account.isprintable() or set(self.account) & set(" %") or not self.account:
            raise SettingsError(f"{self.account!r} is not the name of an account")
        return f"User={self.account}\n"


def quoted(word: str) -> str:
    """`word` escaped as one argument of ExecStart=: systemd.service(5), COMMAND LINES.

    Raises:
        SettingsError: It has a character that a unit cannot hold.
    """
    if not word.isprintable():
        raise SettingsError(f"{word!r} cannot be in a unit: it has a character that is not printed")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = escaped and not set(escaped) & set(" '\"\\;")
    return escaped if plain else f'"{escaped}"'
