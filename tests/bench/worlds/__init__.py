"""A second world: servers composed at random that judge ``latdiag probe``.

They share no code and no law with ``latdiag.sim`` or with the estimator, and every request has an
exact truth. Nothing here may be fitted to what the estimator can do.

    clock       virtual (or real) time
    truth       where a request's time really went, and what could be taken for what
    costs       how long steps and prompts take
    path        the network, gateways and frontends that a request and its reply go through
    gateways    what a proxy does to requests and streams; habits: how tokens are told
    engines, pools   what computes: batching, sharing, static batches, replicas, two pools
    world       all of these as one server; draft, kinds: how one is drawn around a fault
    client, rundir   a whole probe of a world, by latdiag's own design, into a run
    turns, course   what changes on the way, and whether an answer names it
    bounds, limit_kinds   the limits of a world, and whether an answer names them
    judge       what a verdict is worth; baselines: what others would have said
    work, board   one world judged, many worlds and the table; pages: one run and its truth
    sockets, loopback   a world served for real, and the program's probe of it

``python -m tests.bench.worlds --seed TEXT`` prints the table of worlds for development.
"""
