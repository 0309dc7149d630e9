// Our own OpenAI API, seen from a browser: the list of models, and one answer as a stream of chunks.
// Every failure is an ApiFault with a kind that the page has words for.

const kinds = {
  400: "refused", 401: "key", 403: "key", 404: "model", 413: "too_long", 422: "refused", 429: "busy", 503: "loading",
};

export class ApiFault extends Error {
  /** kind: offline, broken, key, model, refused, too_long, busy, loading or server. */
  constructor(kind, message, { status = 0, param = null, code = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { kind, status, param, code, retryAfter });
  }
}

const headersFor = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

async function faultOf(response) {
  let error = {};
  try { error = (await response.json()).error ?? {}; } catch { /* not our JSON: a proxy's page, say */ }
  const kind = error.code === "context_length_exceeded" ? "too_long"
    : kinds[response.status] ?? (response.status >= 500 ? "server" : "refused");
  const wait = Number.parseFloat(response.headers.get("retry-after"));
  return new ApiFault(kind, error.message ?? `HTTP ${response.status}`, {
    status: response.status, param: error.param ?? null, code: error.code ?? null,
    retryAfter: Number.isFinite(wait) ? wait : null });
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiFault("offline", String(error.message ?? error));
  }
  if (!response.ok) throw await faultOf(response);
  return response;
}

/** The models that are served: [{id, ...}]. */
export async function listModels(key) {
  const response = await send("/v1/models", { headers: headersFor(key) });
  return (await response.json()).data ?? [];
}

/** Whether the server is still opening its models; `/health` answers without a key. */
export async function isServerLoading() {
  try {
    return (await (await fetch("/health", { cache: "no-store" })).json()).status === "loading";
  } catch {
    return false;
  }
}

/** The chunks of one streamed chat completion. Aborting the signal ends it at the server too. */
export async function* streamChat(body, key, signal) {
  const response = await send("/v1/chat/completions", {
    method: "POST", signal, body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    headers: { ...headersFor(key), "Content-Type": "application/json" } });
  let isDone = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") { isDone = true; break; }
      const chunk = JSON.parse(data);
      if (chunk.error) {
        throw new ApiFault(kinds[chunk.error.status] ?? "server", chunk.error.message ?? "", chunk.error);
      }
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiFault) throw error;
    throw new ApiFault("broken", String(error.message ?? error));
  }
  if (!isDone) throw new ApiFault("broken", "");
}

/** The data of server-sent events: fields may end in any line break, and events in any part of a packet. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
