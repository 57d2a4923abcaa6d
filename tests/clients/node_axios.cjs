// A legacy app on axios: one payment, no signing.
//
//   URL=<full target> BODY=<text> NODE_PATH=.testbed/node/node_modules \
//     [HTTPS_PROXY=http://127.0.0.1:PORT] [NODE_EXTRA_CA_CERTS=ca.pem] \
//     node node_axios.cjs [axios-1.16.0]
//
// Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
// answer came, whatever its status; 1 otherwise. axios reads HTTPS_PROXY for https and HTTP_PROXY
// for http by itself (lower case wins). What goes to the proxy for an https URL depends on the
// version:
//
// - up to 1.16.0, which the argument chooses: POST https://<host>/<path> in plain text, without
//   CONNECT and without TLS;
// - from 1.16.1 on, which is the default: CONNECT, and TLS inside.

const axios = require(process.argv[2] ?? "axios");

async function main() {
  const { URL: target, BODY: body } = process.env;
  if (!target || body === undefined) {
    console.error("URL and BODY must be set");
    process.exit(2);
  }

  try {
    // Bytes both ways: axios would trim a text, and drop a byte order mark.
    const answer = await axios.post(target, Buffer.from(body), {
      headers: { "Content-Type": "application/json" },
      responseType: "arraybuffer",
      maxRedirects: 0,
      validateStatus: () => true,
      timeout: 30_000,
    });
    console.log(
      JSON.stringify({
        status: answer.status,
        verdict: answer.headers["countersign-verdict"] ?? null,
        error: answer.headers["countersign-error"] ?? null,
        body: answer.data.toString("utf8"),
      }),
    );
  } catch (failure) {
    console.error(`no answer: ${failure} ${failure.cause ?? ""}`);
    process.exitCode = 1;
  }
}

main();
