"""Which code decides a result: the definitions that a stage reaches by name, each with a digest.

Whatever runs is named by code that runs, or stands at the top level of a module that is imported. So the closure
starts with what the stage's module does when it is run and follows the names; of each module imported on the way, the
statements that do more than bind a name count too. Where a name cannot be resolved, the whole module counts.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from plumbline.core.plan.definitions import CALLED, Definition
from plumbline.core.plan.modules import OURS, STAGE, Import, parsed, source

NO_PART_OF_A_RESULT = frozenset(
    {
        STAGE,  # reads the command line, logs, keeps the journal, and calls the function
        f"{OURS}.core.files.atomic",  # moves bytes to their place; whoever writes makes the bytes
        f"{OURS}.core.measure.machine.PACKAGES",  # versions that a description of the machine lists
        # The journal of a job. No stage reads its own; `diagnose` reads those of trainings as they were written, and
        # is itself stale when their code is.
        f"{OURS}.core.run.progress.Progress",
        f"{OURS}.core.run.progress.log_event",
        f"{OURS}.core.settings._explain",  # words a user's mistake
    }
)
"""Names that no result depends on, in the module that defines or imports them. The closure stops there."""

Node = tuple[str, str]
"""Module and name of a definition; in place of the name one of these:"""
EFFECTS, MAIN, WHOLE, EVERYTHING = " when imported", " when run", "*", "**"


@cache
def code_of(stage: str, *modules: str) -> dict[str, str]:
    """Definition -> 12 hex digits, for what the module `stage` reaches when it is run, and all that `modules` hold.

    Raises UserError for a module that cannot be found or parsed.
    """
    waiting: list[Node] = [(stage, MAIN), *((module, WHOLE) for module in modules)]
    found: dict[Node, Definition] = {}
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node], reached = _read(*node)
            waiting += reached
            if found[node].is_computed:
                waiting += [(module, EVERYTHING) for module in (stage, *modules)]
    with_texts = any(definition.keeps_texts for definition in found.values())
    said = sorted(node for node, definition in found.items() if definition.said)
    return {_shown(*node): _digest(*node, with_texts=with_texts) for node in said}


@cache
def _digest(module: str, name: str, *, with_texts: bool) -> str:
    definition, _ = _read(module, name)
    said = [*definition.said, *(definition.texts if with_texts else ())]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]


def _shown(module: str, name: str) -> str:
    return (module.removeprefix(f"{OURS}.") + (name if name.startswith(" ") else f".{name}")).strip()


@cache
def _read(module: str, name: str) -> tuple[Definition, list[Node]]:
    """What a node says, and the nodes it reaches."""
    top = parsed(module)
    everything = name in (WHOLE, EVERYTHING) or (name == MAIN and not top.main)
    definition = Definition(top, {EFFECTS: top.effects, MAIN: top.main}.get(name) or top.bindings.get(name, []))
    imports = [
        *(top.imports if name == EFFECTS else ()),
        *(one for many in definition.imports.values() for one in many),
    ]
    reached = [(module, EFFECTS), *((inner, EFFECTS) for inner in _imported(module, imports))]
    for chain in [*definition.chains, *((bound,) for bound in top.bindings if everything)]:
        reached += _resolve(module, chain)
        for target in definition.imports.get(chain[0], ()):
            reached += _target(module, target, chain[1:])
    if name == EVERYTHING:
        reached += [(inner, EVERYTHING) for inner in _imported(module, top.imports)]
    return definition, reached


def _resolve(module: str, chain: Sequence[str], *, inside: bool = True) -> Iterator[Node]:
    """What the names of `chain` lead to in `module`, seen from inside it or from another."""
    bindings, (name, *rest) = parsed(module).bindings, chain
    if f"{module}.{name}" in NO_PART_OF_A_RESULT:
        return
    for bound in bindings.get(name, ()):
        yield module, name
        if bound == Import(module, name):  # a package that imports a module of its own
            yield from _attribute(f"{module}.{name}", rest)
        elif isinstance(bound, Import):
            yield from _target(module, bound, rest)
        elif rest[:1] != [CALLED]:  # members of an enum: the one that is named, or all
            members = {key for key in bindings if key.startswith(f"{name}.")}
            yield from ((module, key) for key in (members & {f"{name}.{rest[0]}"} if rest else ()) or members)
    if name not in bindings and inside:
        stars = [target.module for target in parsed(module).imports if target.name == "*"]
        yield from ((star, WHOLE) for star in stars if _is_own(star, module))
    elif name not in bindings:
        yield from _attribute(f"{module}.{name}", rest) if _is_own(f"{module}.{name}", module) else [(module, WHOLE)]


def _target(module: str, target: Import, rest: Sequence[str]) -> Iterator[Node]:
    """What an import in `module` leads to, with the names `rest` read from it."""
    if _is_own(target.module, module):
        yield from _attribute(target.module, [*filter(None, [target.name]), *rest])


def _attribute(module: str, chain: Sequence[str]) -> Iterator[Node]:
    yield from [(module, WHOLE)] if list(chain) in ([], [CALLED]) else _resolve(module, chain, inside=False)


def _imported(module: str, imports: Iterable[Import]) -> Iterator[str]:
    """Modules of ours, or of the package of `module`, that run when it imports `imports`; with the packages above."""
    for name in [module, *(".".join(filter(None, target)) for target in imports)]:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            if _is_own(inner := ".".join(parts[:length]), module):
                yield inner


def _is_own(name: str, module: str) -> bool:
    return name.partition(".")[0] in (OURS, module.partition(".")[0]) and source(name) is not None
