// A legacy app on Node's built-in fetch: one payment, no signing.
//
//   URL=<full target> BODY=<text> [NODE_EXTRA_CA_CERTS=ca.pem] node node_fetch.mjs
//
// Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
// answer came, whatever its status; 1 otherwise. It knows no proxy: fetch ignores HTTP_PROXY
// and HTTPS_PROXY in Node 18 to 22, so URL is the sidecar's own address (base-URL mode) or
// traffic is redirected. It takes a 100 it did not ask for as a broken answer.

const { URL: target, BODY: body } = process.env;
if (!target || body === undefined) {
  console.error("URL and BODY must be set");
  process.exit(2);
}

try {
  const answer = await fetch(target, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    redirect: "manual",
    signal: AbortSignal.timeout(30_000),
  });
  // Not text(): it would drop a byte order mark.
  const text = Buffer.from(await answer.arrayBuffer()).toString("utf8");
  console.log(
    JSON.stringify({
      status: answer.status,
      verdict: answer.headers.get("countersign-verdict"),
      error: answer.headers.get("countersign-error"),
      body: text,
    }),
  );
} catch (failure) {
  console.error(`no answer: ${failure} ${failure.cause ?? ""}`);
  process.exitCode = 1;
}
