import java.io.IOException;
import java.net.Socket;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/**
 * A TLS handshake as HttpsURLConnection does it: with the default trust store and the host's name
 * checked. Arguments: HOST PORT. The connection goes to 127.0.0.1 whatever the name is.
 *
 * Prints "PROTOCOL KEY" and exits 0, or prints the chain of causes and exits 1.
 */
public final class Handshake {
    public static void main(String[] arguments) throws IOException {
        String host = arguments[0];
        int port = Integer.parseInt(arguments[1]);
        SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
        try (Socket plain = new Socket("127.0.0.1", port);
                SSLSocket socket = (SSLSocket) factory.createSocket(plain, host, port, true)) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            String key = socket.getSession().getPeerCertificates()[0].getPublicKey().getAlgorithm();
            System.out.println(socket.getSession().getProtocol() + " " + key);
        } catch (IOException problem) {
            for (Throwable cause = problem; cause != null; cause = cause.getCause()) {
                System.out.println(cause);
            }
            System.exit(1);
        }
    }
}
