"""keep-results: what nobody takes from a function is not returned, so that `dce` can do without it."""

from dataclasses import replace

from stategrad.ir import Module
from stategrad.ir.record import record

from .pipeline import Pass, register_pass
from .rebuild import with_body


@register_pass
@record
class KeepResults(Pass):
    """Lets the last function, which no other calls, return only those of its results with these numbers."""

    name = "keep-results"

    results: tuple[int, ...]

    def run(self, module: Module) -> Module:
        function = list(module.functions.values())[-1]
        body = with_body(function.body, function.body.operations, [function.results[i] for i in self.results])
        return module if body is function.body else module.replace({function: replace(function, body=body)})
