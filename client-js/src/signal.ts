/** Calls back when the signal aborts, at once if it has. What is returned stops listening. */
export function onAbort(signal: AbortSignal | undefined, call: () => void): () => void {
  if (signal?.aborted) call();
  signal?.addEventListener("abort", call);
  return () => signal?.removeEventListener("abort", call);
}
