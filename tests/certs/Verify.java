import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

/** Arguments: the CA, then chains. Prints the chains that a TLS client of this Java accepts, one per line. */
public class Verify {
    static X509Certificate[] read(String path) throws Exception {
        var stream = new ByteArrayInputStream(Files.readAllBytes(Path.of(path)));
        return CertificateFactory.getInstance("X.509").generateCertificates(stream).toArray(new X509Certificate[0]);
    }

    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        store.setCertificateEntry("ca", read(arguments[0])[0]);
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(store);
        X509TrustManager manager = (X509TrustManager) factory.getTrustManagers()[0];
        for (int index = 1; index < arguments.length; index++) {
            try {
                manager.checkServerTrusted(read(arguments[index]), "UNKNOWN");
                System.out.println(arguments[index]);
            } catch (CertificateException refusal) {
                System.err.println(arguments[index] + ": " + refusal);
            }
        }
    }
}
