"""From logged runs to the trajectories that training reads.

A verdict gets into a run log when the run has ended, by a line of its own:

    log = RunLog("runs.jsonl")
    ...                                           # the run, which writes its line itself
    log.judge(run_id, exact(answer, "Paris"))     # any Verdict; the last one counts

`read_runs` gives the run with that verdict. Groups, purposes and seeds are in the run's own line, from the context:
`{"task": {"id": ..., "group_id": ..., "rollout": 3, "purpose": "train", "split": "train"}}`; see
`orchestra_graph.state.About`. For a run that was read already, `run.model_copy(update={"verdict": verdict})` is it.
"""
