// A legacy app on an axios without CONNECT of its own, and https-proxy-agent: one payment, no signing.
//
//   URL=<full target> BODY=<text> NODE_PATH=.testbed/node/node_modules \
//     [HTTPS_PROXY=http://127.0.0.1:PORT] [NODE_EXTRA_CA_CERTS=ca.pem] node node_axios_agent.cjs
//
// Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
// answer came, whatever its status; 1 otherwise. This pair is how apps made axios tunnel before
// 1.16.1. The app reads HTTPS_PROXY itself and hands it to the agent, for https URLs only.

const axios = require("axios-1.16.0");
const { HttpsProxyAgent } = require("https-proxy-agent");

async function main() {
  const { URL: target, BODY: body, HTTPS_PROXY: proxy } = process.env;
  if (!target || body === undefined) {
    console.error("URL and BODY must be set");
    process.exit(2);
  }

  try {
    // Bytes both ways: axios would trim a text, and drop a byte order mark.
    const answer = await axios.post(target, Buffer.from(body), {
      headers: { "Content-Type": "application/json" },
      httpsAgent: proxy ? new HttpsProxyAgent(proxy) : undefined,
      proxy: false,
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
