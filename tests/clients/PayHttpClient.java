import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

/**
 * A legacy app on java.net.http.HttpClient: one payment, no signing.
 *
 * <pre>
 * LC_ALL=C.UTF-8 URL=&lt;full target&gt; BODY=&lt;text&gt; java [-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=PORT] \
 *     [-Djavax.net.ssl.trustStore=ca.p12 -Djavax.net.ssl.trustStorePassword=changeit] PayHttpClient.java
 * </pre>
 *
 * Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
 * answer came, whatever its status; 1 otherwise. Proxy and trust come from the JVM's properties
 * alone; Java bypasses the proxy for localhost and 127.*, so URL holds the gateway's name.
 *
 * <p>The client asks for HTTP/2: of https URLs by ALPN, inside a CONNECT tunnel as well; of http URLs
 * by an Upgrade to h2c in the first request, unless that goes through a proxy.
 */
public final class PayHttpClient {
    public static void main(String[] arguments) throws InterruptedException {
        String target = System.getenv("URL");
        String body = System.getenv("BODY");
        // Outside a UTF-8 locale the JVM cannot read such text from its environment; sending
        // what is left of it would be a wrong test.
        if (target == null || body == null || body.indexOf('\uFFFD') >= 0) {
            System.err.println("URL and BODY must be set, and LC_ALL=C.UTF-8 where BODY is not ASCII");
            System.exit(2);
        }

        try {
            System.out.println(pay(URI.create(target), body));
        } catch (IOException failure) {
            System.err.println("no answer: " + failure);
            System.exit(1);
        }
    }

    private static String pay(URI target, String body) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(target)
                .header("Content-Type", "application/json")
                .timeout(Duration.ofSeconds(30))
                .POST(BodyPublishers.ofString(body))
                .build();
        HttpResponse<byte[]> answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofByteArray());
        return "{\"status\":" + answer.statusCode()
                + ",\"verdict\":" + json(answer.headers().firstValue("countersign-verdict").orElse(null))
                + ",\"error\":" + json(answer.headers().firstValue("countersign-error").orElse(null))
                + ",\"body\":" + json(new String(answer.body(), StandardCharsets.UTF_8)) + "}";
    }

    /** Text as a JSON string in ASCII, whatever the locale's encoding of stdout; null as null. */
    private static String json(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder quoted = new StringBuilder("\"");
        for (char unit : text.toCharArray()) {
            if (unit == '"' || unit == '\\') {
                quoted.append('\\').append(unit);
            } else if (unit < 0x20 || unit > 0x7e) {
                quoted.append(String.format("\\u%04x", (int) unit));
            } else {
                quoted.append(unit);
            }
        }
        return quoted.append('"').toString();
    }
}
