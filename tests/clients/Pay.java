import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;

/**
 * A legacy app on HttpURLConnection: one payment, no signing.
 *
 * <pre>
 * LC_ALL=C.UTF-8 URL=&lt;full target&gt; BODY=&lt;text&gt; java [-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=PORT] \
 *     [-Djavax.net.ssl.trustStore=ca.p12 -Djavax.net.ssl.trustStorePassword=changeit] Pay.java
 * </pre>
 *
 * Prints one line of JSON (status, verdict, error, body) and exits 0 whenever an HTTP answer
 * came, whatever its status; 1 otherwise. Proxy and trust come from the JVM's properties
 * alone: https.proxyHost for https URLs, http.proxyHost for http. Java bypasses the proxy for
 * localhost and 127.*, so URL holds the gateway's name.
 *
 * <p>Two habits of HttpURLConnection are left as they are, because apps of this kind have them
 * too. A POST whose connection closes without any answer is sent a second time by the JDK itself
 * (-Dsun.net.http.retryPost=false ends that). And a body that breaks off before its
 * Content-Length is no error: the half that came is the answer.
 */
public final class Pay {
    public static void main(String[] arguments) throws IOException {
        String target = System.getenv("URL");
        String body = System.getenv("BODY");
        // Outside a UTF-8 locale the JVM cannot read such text from its environment; sending
        // what is left of it would be a wrong test.
        if (target == null || body == null || body.indexOf('\uFFFD') >= 0) {
            System.err.println("URL and BODY must be set, and LC_ALL=C.UTF-8 where BODY is not ASCII");
            System.exit(2);
        }

        try {
            System.out.println(pay(new URL(target), body.getBytes(StandardCharsets.UTF_8)));
        } catch (IOException failure) {
            System.err.println("no answer: " + failure);
            System.exit(1);
        }
    }

    private static String pay(URL target, byte[] body) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) target.openConnection();
        connection.setRequestMethod("POST");
        connection.setRequestProperty("Content-Type", "application/json");
        connection.setInstanceFollowRedirects(false);
        connection.setConnectTimeout(30_000);
        connection.setReadTimeout(30_000);
        connection.setDoOutput(true);
        try (OutputStream out = connection.getOutputStream()) {
            out.write(body);
        }

        int status = connection.getResponseCode();
        byte[] answer = {};
        try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            // An error without a body has no stream.
            if (in != null) {
                answer = in.readAllBytes();
            }
        }
        return "{\"status\":" + status
                + ",\"verdict\":" + json(connection.getHeaderField("countersign-verdict"))
                + ",\"error\":" + json(connection.getHeaderField("countersign-error"))
                + ",\"body\":" + json(new String(answer, StandardCharsets.UTF_8)) + "}";
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
