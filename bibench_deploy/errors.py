"""Every error that bibench_deploy raises on purpose.

    DeployError
    ├── UnknownNameError   a name of no target, device, format or preset
    ├── UnknownRuleError   a code or name of no lint rule
    ├── SourceError        a SOURCE that is missing or is not what its form promises
    ├── GraphError         an .onnx file that cannot be read, or holds what we cannot read
    │   └── UnfitGraphError    one that is sound, and that no target takes
    ├── OptionError        an export option that the chosen target does not have
    ├── SettingsError      [tool.bibench.lint] or a baseline that says what is not known
    ├── LoweringError      a graph that a target cannot hold, with every reason at once
    ├── ConversionError    an engine's converter that failed or fell back to float
    ├── ParityError        an artifact whose outputs differ from its source
    ├── ArtifactError      an exported folder that is missing, damaged or of another form
    ├── ResultsError       a results file that cannot be read
    ├── DeviceError        a device that is unknown, unreachable, or whose command failed
    ├── MissingExtraError  an optional part of bibench that is not installed
    └── MissingLibraryError  a compiled part of bibench that was not built, or does not load

The command line prints such an error as one line and exits with 2; any other
exception is a bug of ours and shows its trace.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class DeployError(Exception):
    """Base of every error that this package raises on purpose."""


class UnknownNameError(DeployError):
    """A name that belongs to nothing here; lists the valid names and the nearest one."""

    def __init__(self, kind: str, name: str, valid: Sequence[str]) -> None:
        self.kind = kind
        self.name = name
        self.valid = tuple(valid)
        near = difflib.get_close_matches(name, self.valid, n=1)
        hint = f' (did you mean "{near[0]}"?)' if near else ""
        super().__init__(f'unknown {kind} "{name}"{hint}; one of: {", ".join(self.valid)}')


class UnknownRuleError(DeployError):
    """A code or name of no lint rule.

    Attributes:
        name: what was given.
    """

    def __init__(self, name: str, hint: str) -> None:
        self.name = name
        super().__init__(f'unknown rule "{name}"{hint}')


class SourceError(DeployError):
    """A SOURCE that is missing, or is not what its form promises."""


class GraphError(DeployError):
    """An .onnx file that cannot be read, or whose content bibench cannot use."""

    def __init__(self, text: str) -> None:
        # Names in a damaged file hold anything, line breaks too.
        super().__init__(" ".join(text.splitlines()))


class UnfitGraphError(GraphError):
    """A sound .onnx file that no target takes as it is.

    Attributes:
        rule: name of the lint rule that explains it.
        finding: what was found, without the file's name.
        hint: what to do.
        node: name of the node; empty where it is the file as a whole.
    """

    def __init__(
        self, rule: str, finding: str, hint: str, place: str = "", *, node: str = ""
    ) -> None:
        self.rule = rule
        self.finding = finding
        self.hint = hint
        self.node = node
        where = f'node "{node}": ' if node else ""
        super().__init__(f"{place}{where}{finding}; {hint}")

    def at(self, place: str) -> UnfitGraphError:
        """The same, said of a file."""
        return UnfitGraphError(self.rule, self.finding, self.hint, place, node=self.node)


class OptionError(DeployError):
    """An export option that the chosen target does not have; names the targets that do."""

    def __init__(self, option: str, target: str, holders: Sequence[str]) -> None:
        self.option = option
        self.target = target
        self.holders = tuple(holders)
        super().__init__(
            f"target {target} has no --{option.replace('_', '-')} (it is for "
            f"{', '.join(self.holders)}); leave it out"
        )


class SettingsError(DeployError):
    """Settings of lint, or a baseline, that cannot be read or say what is not known."""


class LoweringError(DeployError):
    """A graph that a target cannot hold; the message names nodes of one reason together.

    Attributes:
        target: name of the target that refused.
        reasons: one text for each node that stands in the way, all of them at once.
    """

    def __init__(self, target: str, reasons: Sequence[str]) -> None:
        self.target = target
        self.reasons = tuple(reasons)
        nodes: dict[str, list[str]] = {}
        for reason in self.reasons:
            name, separator, text = reason.partition(": ")
            nodes.setdefault(separator + text, []).append(name)
        groups = [", ".join(names) + text for text, names in nodes.items()]
        if len(groups) > 1:
            groups = [f"({number}) {group}" for number, group in enumerate(groups, start=1)]
        merged = "; ".join(groups)
        super().__init__(f"target {target} cannot hold this model: {merged}")


class ConversionError(DeployError):
    """An engine's converter that failed, or dropped a binary layer to float."""


class ParityError(DeployError):
    """An artifact whose outputs differ from its source by more than rounding explains."""


class ArtifactError(DeployError):
    """An exported folder that is missing, damaged, or of another form."""


class ResultsError(DeployError):
    """A results file that is missing, damaged, or of another form."""


class DeviceError(DeployError):
    """A device that is unknown or unreachable, or a command that failed on it.

    Attributes:
        exit_code: of the command, or None where none ran.
        stderr: what the command wrote there.
    """

    def __init__(self, message: str, *, exit_code: int | None = None, stderr: str = "") -> None:
        self.exit_code = exit_code
        self.stderr = stderr
        super().__init__(message)


class MissingExtraError(DeployError):
    """A part of bibench that is not installed, or in a version that does not do.

    Names the command that puts it right: `extra` is one of bibench's, or empty for what it
    always needs; `found` is the version that is there, where there is one.
    """

    def __init__(self, purpose: str, package: str, extra: str, *, found: str | None = None) -> None:
        self.package = package
        self.extra = extra
        state = "which is not installed" if found is None else f"but {found} is installed"
        place = f'".[{extra}]"' if extra else "."
        super().__init__(
            f"{purpose} needs {package}, {state}; "
            f"run in a clone of bibench: python -m pip install {place}"
        )


class MissingLibraryError(DeployError):
    """A compiled part of bibench that was not built, or that this machine cannot load."""
