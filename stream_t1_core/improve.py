"""The survivors refined, judged as their chunk's candidates were: what ``refine.py`` is handed."""

from dataclasses import replace

from . import scoring
from .accounts import with_passes
from .prune import Pruned, add_route
from .refine import refine
from .replay import tell_refined
from .state import Candidate
from .work import Work


def improve(pruned: Pruned, work: Work) -> Pruned:
    """Survivors after the passes that there is time for, in their order; the reports say so."""
    tools, meter = work.tools, work.meter
    work = with_passes(work, meter.passes(work.config.refine.passes, len(pruned.survivors)))
    video = ("video",) if tools.showing else ()

    def before_call(calls: int) -> None:
        if meter.deadline:
            tools.model.wait()
        meter.refining("denoise", "decode", *video, "score")
        meter.before_call(calls)

    def judge(candidate: Candidate) -> Candidate:
        meter.refining("decode", *video, "score")
        [candidate] = scoring.decode([candidate], tools.critic, work.config)
        if tools.showing:
            candidate = tools.showing(candidate, lambda: meter.refining("video", "score"))
        meter.refining("score")
        known = (pruned.seen, pruned.left_out)
        candidate = scoring.score_again(candidate, work.chunk, tools.critic, work.config, *known)
        return add_route(candidate, work.config)

    with meter.phase("refine"):
        refined = refine(pruned.survivors, work, judge, before_call)
    reports = [*pruned.reports]
    by_index = {i: refined[r.rank] for i, r in enumerate(reports) if r.rank is not None}
    changed = {i: r.candidate for i, r in by_index.items() if r.told and r.told.accepted}
    tell_refined(changed, work.chunk, work.emit)
    for i, after in by_index.items():
        route = after.candidate.route
        reports[i] = replace(reports[i], refined=after.told, route=route.value if route else None)
    return replace(pruned, survivors=[r.candidate for r in refined], reports=tuple(reports))
