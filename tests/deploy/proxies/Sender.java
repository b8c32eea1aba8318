import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.time.Instant;
import java.util.HexFormat;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Delivers signed events with Java's own client until standard input ends. As its defaults are, it
 * asks on plain HTTP to upgrade to HTTP/2, and sends a body behind its head.
 *
 * <p>Arguments: URL, secret. It prints what an answer was where that isn't 202, and at the end how
 * many were accepted.
 */
public final class Sender {
    private static final int SENDERS = 4;
    private static final int LARGE = 100_000; // more than a proxy passes on in one piece

    private final HttpClient client = HttpClient.newHttpClient();
    private final AtomicInteger accepted = new AtomicInteger();
    private final AtomicBoolean ends = new AtomicBoolean();
    private final URI url;
    private final String secret;

    private Sender(URI url, String secret) {
        this.url = url;
        this.secret = secret;
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Sender sender = new Sender(URI.create(arguments[0]), arguments[1]);
        Thread[] threads = new Thread[SENDERS];
        for (int number = 0; number < SENDERS; number++) {
            int own = number;
            threads[number] = new Thread(() -> sender.deliver(own));
            threads[number].start();
        }
        while (System.in.read() != -1) {}
        sender.ends.set(true);
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.println("accepted " + sender.accepted.get());
    }

    private void deliver(int own) {
        for (int number = 0; !ends.get(); number++) {
            String id = "evt_" + own + "_" + number;
            try {
                var answer = client.send(request(id, number % 8 == 0), BodyHandlers.ofString());
                if (answer.statusCode() == 202) {
                    accepted.incrementAndGet();
                } else {
                    System.out.println(id + " " + answer.statusCode() + " " + answer.body());
                }
                TimeUnit.MILLISECONDS.sleep(10);
            } catch (IOException | InterruptedException | GeneralSecurityException error) {
                System.out.println(id + " " + error);
            }
        }
    }

    private HttpRequest request(String id, boolean isLarge) throws GeneralSecurityException {
        String note = isLarge ? "x".repeat(LARGE) : "";
        String body =
                """
                {"id":"%s","type":"order.updated","created_at":"%s","organization_id":"org_a",\
                "data":{"order_id":1,"note":"%s"}}"""
                        .formatted(id, Instant.now(), note);
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        byte[] signature = mac.doFinal(body.getBytes(StandardCharsets.UTF_8));
        return HttpRequest.newBuilder(url)
                .timeout(Duration.ofSeconds(30))
                .header("X-Sellfern-Signature", HexFormat.of().formatHex(signature))
                .POST(BodyPublishers.ofString(body))
                .build();
    }
}
