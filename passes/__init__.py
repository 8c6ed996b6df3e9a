"""Passes: Module -> Module."""

if __name__ != "stategrad.passes":
    raise ImportError("import this package as stategrad.passes: under another name every class would exist twice")
