"""An HTTP endpoint that streams a run as server-sent events: python examples/fastapi_stream.py [PORT]

curl -N "http://127.0.0.1:8000/ask?question=What+is+1234+*+5678%3F"
"""

import json
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse

from orchestra_graph import Budget, OrchestraError, Rules, create_orchestrator
from orchestra_graph.workbench import Workbench

bench = Workbench()  # experts that run offline; put your own models in their place
graph = create_orchestrator(Rules(), bench.tools(bench.world()), catalog=bench.catalog).compile()
app = FastAPI()


@app.get("/ask")
async def ask(question: str, dollars: Annotated[float, Query(ge=0)] = 0.05) -> StreamingResponse:
    """The events of `orchestra_graph.events`, each named by its type."""

    async def events() -> AsyncIterator[str]:
        given = {"messages": [("user", question)]}
        context = {"budget": Budget(dollars=dollars)}
        try:
            async for event in graph.astream(given, context=context, stream_mode="custom"):
                yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        except OrchestraError as error:  # the headers are sent: what goes wrong now is told as an event
            yield f"event: error\ndata: {json.dumps({'type': 'error', 'message': str(error)})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000, log_level="warning")
