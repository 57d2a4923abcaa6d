// A legacy app on undici and its EnvHttpProxyAgent: one payment, no signing.
//
//   URL=<full target> BODY=<text> NODE_PATH=.testbed/node/node_modules \
//     [HTTPS_PROXY=http://127.0.0.1:PORT] [NODE_EXTRA_CA_CERTS=ca.pem] node node_undici.cjs
//
// Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
// answer came, whatever its status; 1 otherwise. The agent reads HTTPS_PROXY for https URLs, or
// else HTTP_PROXY, which is also for http URLs (lower case wins). It sends CONNECT for both: an
// http URL becomes CONNECT <host>:80 and plain HTTP inside.

const { EnvHttpProxyAgent, request } = require("undici");

async function main() {
  const { URL: target, BODY: body } = process.env;
  if (!target || body === undefined) {
    console.error("URL and BODY must be set");
    process.exit(2);
  }

  const dispatcher = new EnvHttpProxyAgent();
  try {
    const answer = await request(target, {
      dispatcher,
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
      signal: AbortSignal.timeout(30_000),
    });
    // Not text(): it would drop a byte order mark.
    const text = Buffer.from(await answer.body.arrayBuffer()).toString("utf8");
    console.log(
      JSON.stringify({
        status: answer.statusCode,
        verdict: answer.headers["countersign-verdict"] ?? null,
        error: answer.headers["countersign-error"] ?? null,
        body: text,
      }),
    );
  } catch (failure) {
    console.error(`no answer: ${failure} ${failure.cause ?? ""}`);
    process.exitCode = 1;
  } finally {
    await dispatcher.destroy();
  }
}

main();
