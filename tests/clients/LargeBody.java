import java.io.IOException;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;

/**
 * Sends a body that is over the limit, as HttpURLConnection does: whole, before it reads.
 *
 * <pre>java LargeBody.java URL length|chunked MIB</pre>
 *
 * Prints the status and the countersign-error field, or the exception.
 */
public final class LargeBody {
    public static void main(String[] arguments) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(arguments[0]).openConnection();
        int mebibytes = Integer.parseInt(arguments[2]);
        connection.setRequestMethod("POST");
        connection.setRequestProperty("Content-Type", "application/json");
        connection.setDoOutput(true);
        if (arguments[1].equals("chunked")) {
            connection.setChunkedStreamingMode(0);
        } else {
            connection.setFixedLengthStreamingMode(mebibytes << 20);
        }
        try (OutputStream out = connection.getOutputStream()) {
            byte[] part = new byte[1 << 20];
            for (int each = 0; each < mebibytes; each++) {
                out.write(part);
            }
        } catch (IOException failure) {
            System.out.println("not sent: " + failure);
            return;
        }
        System.out.println(connection.getResponseCode() + " " + connection.getHeaderField("countersign-error"));
    }
}
