import java.nio.ByteBuffer;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadLocalRandom;
import java.util.random.RandomGenerator;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;

/** Random numbers of every kind, from generators that are in use before the checkpoint. */
final class Draws {
    private static final byte[] SEED = "a seed of the application's own".getBytes();

    private interface Kind {
        String draw() throws Exception;
    }

    private final Map<String, Kind> kinds = new LinkedHashMap<>();
    private final ExecutorService thread = Executors.newSingleThreadExecutor(task -> {
        Thread drawing = new Thread(task, "drawing");
        drawing.setDaemon(true);
        return drawing;
    });

    /** One line each: when it was asked for, in milliseconds, and what came. */
    private final ConcurrentLinkedQueue<String> stream = new ConcurrentLinkedQueue<>();

    /** What the virtual thread by itself is asked. */
    private final LinkedBlockingQueue<CompletableFuture<String>> questions = new LinkedBlockingQueue<>();

    Draws() throws Exception {
        kinds.put("uuid", () -> UUID.randomUUID().toString());
        for (String name : List.of("NativePRNG", "NativePRNGNonBlocking", "NativePRNGBlocking", "SHA1PRNG", "DRBG")) {
            SecureRandom random = SecureRandom.getInstance(name);
            kinds.put(name, () -> hex(random));
            SecureRandom given = SecureRandom.getInstance(name);
            given.nextInt();
            given.setSeed(SEED);
            kinds.put(name + " given more entropy", () -> hex(given));
        }
        SecureRandom fresh = SecureRandom.getInstance("SHA1PRNG");
        SecureRandom freshDrbg = SecureRandom.getInstance("DRBG");
        kinds.put("SHA1PRNG not used before", () -> Service.isRestored() ? hex(fresh) : "unused");
        kinds.put("DRBG not used before", () -> Service.isRestored() ? hex(freshDrbg) : "unused");
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, null, null);
        kinds.put("TLS hello", () -> hello(tls));
        kinds.put("ThreadLocalRandom", () -> number(ThreadLocalRandom.current().nextLong()));
        ExecutorService pool = Executors.newSingleThreadExecutor(virtualThreads());
        kinds.put("ThreadLocalRandom of a virtual thread in a pool",
                () -> pool.submit(() -> number(ThreadLocalRandom.current().nextLong())).get());
        virtualThreads().newThread(this::answerForEver).start();
        kinds.put("ThreadLocalRandom of a virtual thread by itself", () -> {
            CompletableFuture<String> answer = new CompletableFuture<>();
            questions.put(answer);
            return answer.get();
        });
        kinds.put("Math.random", () -> Double.toString(Math.random()));
        kinds.put("new Random", () -> number(new Random().nextLong()));
        kinds.put("new SplittableRandom", () -> number(new SplittableRandom().nextLong()));
        kinds.put("new L64X128MixRandom", () -> number(RandomGenerator.of("L64X128MixRandom").nextLong()));
        kinds.put("shuffle", Draws::shuffle);

        SecureRandom seeded = SecureRandom.getInstance("SHA1PRNG");
        seeded.setSeed(SEED);
        kinds.put("fixed SHA1PRNG", () -> hex(seeded));
        SecureRandom seededDrbg = SecureRandom.getInstance("DRBG");
        seededDrbg.setSeed(SEED);
        kinds.put("fixed DRBG", () -> hex(seededDrbg));
        Random random = new Random(42);
        kinds.put("fixed Random", () -> number(random.nextLong()));
        SplittableRandom splittable = new SplittableRandom(42);
        kinds.put("fixed SplittableRandom", () -> number(splittable.nextLong()));

        Thread streaming = new Thread(this::drawForEver, "streaming");
        streaming.setDaemon(true);
        streaming.start();
    }

    /** Of virtual threads, where the JDK has them. */
    private static ThreadFactory virtualThreads() throws ReflectiveOperationException {
        if (Runtime.version().feature() < 21) {
            return task -> {
                Thread made = new Thread(task);
                made.setDaemon(true);
                return made;
            };
        }
        Object builder = Thread.class.getMethod("ofVirtual").invoke(null);
        return (ThreadFactory) Class.forName("java.lang.Thread$Builder").getMethod("factory").invoke(builder);
    }

    private void answerForEver() {
        try {
            while (true) {
                questions.take().complete(number(ThreadLocalRandom.current().nextLong()));
            }
        } catch (InterruptedException e) {
            // Nobody asks any more.
        }
    }

    /** One of each kind, always by the same thread. */
    String all() throws Exception {
        return thread.submit(() -> {
            StringBuilder lines = new StringBuilder();
            for (Map.Entry<String, Kind> kind : kinds.entrySet()) {
                lines.append(kind.getKey()).append('=').append(kind.getValue().draw()).append('\n');
            }
            return lines.toString();
        }).get();
    }

    /** What the stream has drawn since a time. */
    String streamedSince(long millis) {
        StringBuilder lines = new StringBuilder();
        for (String line : stream) {
            if (Long.parseLong(line.substring(0, line.indexOf(' '))) >= millis) {
                lines.append(line.substring(line.indexOf(' ') + 1)).append('\n');
            }
        }
        return lines.toString();
    }

    /** Threads of a copy that run before any hook of the application's must not draw the same. */
    private void drawForEver() {
        while (true) {
            long asked = System.currentTimeMillis();
            stream.add(asked + " " + UUID.randomUUID());
            if (stream.size() > 20_000) {
                stream.poll();
            }
            try {
                Thread.sleep(1);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    private static String hex(SecureRandom random) {
        byte[] bytes = new byte[32];
        random.nextBytes(bytes);
        return HexFormat.of().formatHex(bytes);
    }

    private static String number(long number) {
        return Long.toString(number);
    }

    private static String shuffle() {
        List<Integer> numbers = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            numbers.add(i);
        }
        Collections.shuffle(numbers);
        return numbers.toString();
    }

    /** The first message of a handshake: a random of 32 bytes, a session id, key shares. */
    private static String hello(SSLContext tls) throws Exception {
        SSLEngine engine = tls.createSSLEngine("localhost", 1);
        engine.setUseClientMode(true);
        engine.beginHandshake();
        ByteBuffer message = ByteBuffer.allocate(engine.getSession().getPacketBufferSize());
        engine.wrap(ByteBuffer.allocate(0), message);
        // After the headers of the record and of the message, and the version: the random.
        byte[] random = Arrays.copyOfRange(message.array(), 11, 43);
        return Base64.getEncoder().encodeToString(random);
    }
}
