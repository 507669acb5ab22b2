"""From logged runs to the trajectories that training reads.

    report = harvest([LogSource(Path("runs.jsonl"))], Path("data"))

Sources: run logs (`logs`), LangSmith projects (`langsmith`) and their bulk exports (`export`), LangGraph checkpoints
(`checkpoints`); `sources.open_sources` takes them by the names of the command line. `gather` merges them, states each
run's `fidelity`, splits by task and writes run logs, which `orchestra_graph.runlog.read.read_runs` reads;
`output.provenance(run)` says where a run is from.

A verdict gets into a run log when the run has ended, by a line of its own:

    log = RunLog("runs.jsonl")
    ...                                           # the run, which writes its line itself
    log.judge(run_id, exact(answer, "Paris"))     # any Verdict; the last one counts

`read_runs` gives the run with that verdict. Groups, purposes and seeds are in the run's own line, from the context:
`{"task": {"id": ..., "group_id": ..., "rollout": 3, "purpose": "train", "split": "train"}}`; see
`orchestra_graph.state.About`. For a run that was read already, `run.model_copy(update={"verdict": verdict})` is it.
"""
