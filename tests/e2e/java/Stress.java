import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.Proxy;
import java.math.BigInteger;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.function.LongUnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.LongStream;
import java.util.zip.CRC32;
import java.util.zip.Deflater;
import java.util.zip.Inflater;
import jdk.crac.Context;
import jdk.crac.Core;
import jdk.crac.Resource;

/**
 * {@code Stress PORT}: a web service all of whose parts are at work when an image is taken. {@code /work?N} is answered
 * with a text that depends on N alone, however it comes about: by new classes, exceptions that the processor
 * raises, native code, intrinsics, other threads. {@code /count} tells how often it was, {@code /problems} what
 * the threads have found wrong that work whether or not anybody asks.
 */
public final class Stress {
    private static final AtomicLong COUNT = new AtomicLong();
    private static final StringBuffer PROBLEMS = new StringBuffer();
    private static final AtomicLong TURNS = new AtomicLong();
    private static byte[] loadable;
    private static volatile HttpServer server;
    private static volatile ExecutorService answering;
    private static Resource kept;

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        try (InputStream in = Stress.class.getResourceAsStream("Stress$Loaded.class")) {
            loadable = in.readAllBytes();
        }
        listen(port);
        kept = new Resource() {
            @Override
            public void beforeCheckpoint(Context<? extends Resource> context) {
                // Whoever is being answered is cut off and asks again; what answers goes on to its end.
                server.stop(0);
                answering.shutdown();
            }

            @Override
            public void afterRestore(Context<? extends Resource> context) throws Exception {
                listen(port);
            }
        };
        Core.getGlobalContext().register(kept);
        go("allocating", Stress::allocate);
        go("compiling", Stress::compile);
        go("watching", Stress::watch);
        System.out.println("ready");
    }

    private static void listen(int port) throws IOException {
        HttpServer fresh = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 100);
        answering = Executors.newFixedThreadPool(8);
        fresh.setExecutor(answering);
        fresh.createContext("/", Stress::answer);
        fresh.start();
        server = fresh;
    }

    private static void answer(HttpExchange exchange) throws IOException {
        String answer;
        try {
            switch (exchange.getRequestURI().getPath()) {
                case "/work":
                    answer = work(Long.parseLong(exchange.getRequestURI().getQuery()));
                    COUNT.incrementAndGet();
                    break;
                case "/count":
                    answer = COUNT.toString();
                    break;
                case "/turns":
                    answer = TURNS.toString();
                    break;
                case "/problems":
                    answer = "problems:" + PROBLEMS;
                    break;
                default:
                    answer = "hello";
                    break;
            }
        } catch (Throwable problem) {
            java.io.StringWriter text = new java.io.StringWriter();
            problem.printStackTrace(new java.io.PrintWriter(text));
            answer = "problem: " + text;
        }
        byte[] bytes = answer.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(200, bytes.length);
        try (OutputStream body = exchange.getResponseBody()) {
            body.write(bytes);
        }
    }

    /** Each line is the outcome of another part of the JVM. */
    private static String work(long number) throws Exception {
        SplittableRandom random = new SplittableRandom(number);
        StringBuilder text = new StringBuilder("work " + number + '\n');
        text.append("collections ").append(collections(random)).append('\n');
        text.append("exceptions ").append(exceptions(random)).append('\n');
        text.append("classes ").append(classes(random)).append('\n');
        text.append("digest ").append(digest(random)).append('\n');
        text.append("deflated ").append(deflated(random)).append('\n');
        text.append("numbers ").append(numbers(random)).append('\n');
        text.append("threads ").append(threads(random)).append('\n');
        text.append("pattern ").append(pattern(random)).append('\n');
        text.append("memory ").append(memory(random)).append('\n');
        if (number % 16 == 0) {
            System.gc();
        }
        return text.toString();
    }

    private static long collections(SplittableRandom random) {
        Map<String, List<Long>> map = new HashMap<>();
        for (int i = 0; i < 2000; i++) {
            map.computeIfAbsent("key " + random.nextInt(200), key -> new ArrayList<>()).add(random.nextLong(1000));
        }
        long sum = 0;
        for (Map.Entry<String, List<Long>> entry : new TreeMap<>(map).entrySet()) {
            sum = sum * 31 + entry.getKey().hashCode() + entry.getValue().stream().mapToLong(Long::longValue).sum();
        }
        return sum;
    }

    /** Those that the processor raises in compiled code (null, division), those of bounds and casts, deep ones. */
    private static String exceptions(SplittableRandom random) {
        int[] caught = new int[6];
        int[] array = new int[16];
        Object[] things = {null, "text", 7, array};
        for (int i = 0; i < 600; i++) {
            Object thing = things[random.nextInt(4)];
            int index = random.nextInt(20);
            try {
                switch (i % 5) {
                    case 0:
                        array[0] += thing.hashCode() & 1;
                        break;
                    case 1:
                        array[index] += 1;
                        break;
                    case 2:
                        array[1] += 100 / (index % 4);
                        break;
                    case 3:
                        array[2] += ((String) thing).length();
                        break;
                    default:
                        array[3] += deep(index);
                        break;
                }
            } catch (NullPointerException e) {
                caught[0]++;
            } catch (ArrayIndexOutOfBoundsException e) {
                caught[1]++;
            } catch (ArithmeticException e) {
                caught[2]++;
            } catch (ClassCastException e) {
                caught[3]++;
            } catch (IllegalStateException e) {
                caught[4] += e.getMessage().length();
            }
        }
        try {
            caught[5] = endless(1);
        } catch (StackOverflowError e) {
            caught[5] = -1;
        }
        array[0] = 0;
        return Arrays.toString(caught) + Arrays.toString(array);
    }

    private static int deep(int depth) {
        if (depth > 15) {
            throw new IllegalStateException("deep " + depth);
        }
        return depth > 10 ? deep(depth + 1) : depth;
    }

    private static int endless(int depth) {
        return endless(depth + 1) + 1;
    }

    /** A loader of its own, and a class that it defines, which goes with it. */
    private static final class Loader extends ClassLoader {
        Loader() {
            super(Stress.class.getClassLoader());
        }

        Class<?> define() {
            return defineClass("Stress$Loaded", loadable, 0, loadable.length);
        }
    }

    /** Defined anew for every request. */
    public static final class Loaded implements LongUnaryOperator {
        private static final Map<Long, String> SEEN = new ConcurrentHashMap<>();

        @Override
        public long applyAsLong(long seed) {
            LongUnaryOperator one = value -> value * 6364136223846793005L + 1442695040888963407L;
            LongUnaryOperator two = one.andThen(value -> value ^ (value >>> 29));
            long value = seed;
            for (int i = 0; i < 500; i++) {
                value = two.applyAsLong(value);
                SEEN.put(value & 15, "seen " + i);
            }
            return value + SEEN.size();
        }
    }

    private static long classes(SplittableRandom random) throws Exception {
        Class<?> fresh = new Loader().define();
        LongUnaryOperator operator = (LongUnaryOperator) fresh.getDeclaredConstructor().newInstance();
        Comparable<?> proxy = (Comparable<?>) Proxy.newProxyInstance(fresh.getClassLoader(),
                new Class<?>[] {Comparable.class}, (self, method, arguments) -> 5);
        @SuppressWarnings("unchecked")
        int five = ((Comparable<Object>) proxy).compareTo("anything");
        return operator.applyAsLong(random.nextLong()) + five;
    }

    private static String digest(SplittableRandom random) throws Exception {
        byte[] bytes = new byte[20_000];
        random.nextBytes(bytes);
        CRC32 crc = new CRC32();
        crc.update(bytes);
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(bytes);
        return new BigInteger(1, digest).toString(36) + ' ' + crc.getValue() + ' ' + Arrays.hashCode(bytes);
    }

    private static String deflated(SplittableRandom random) throws Exception {
        byte[] bytes = new byte[8000];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) ('a' + random.nextInt(4));
        }
        Deflater deflater = new Deflater();
        deflater.setInput(bytes);
        deflater.finish();
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        byte[] buffer = new byte[512];
        while (!deflater.finished()) {
            out.write(buffer, 0, deflater.deflate(buffer));
        }
        deflater.end();
        Inflater inflater = new Inflater();
        inflater.setInput(out.toByteArray());
        byte[] back = new byte[bytes.length];
        int length = 0;
        while (length < back.length) {
            length += inflater.inflate(back, length, back.length - length);
        }
        inflater.end();
        return out.size() + " " + Arrays.equals(bytes, back);
    }

    private static String numbers(SplittableRandom random) {
        double sum = 0;
        for (int i = 1; i < 3000; i++) {
            sum += Math.sin(random.nextDouble()) * Math.sqrt(i) + StrictMath.log(i) / Math.fma(i, 2.0, 1.0);
        }
        BigInteger big = new BigInteger(512, new java.util.Random(random.nextLong()));
        return sum + " " + big.modPow(big.add(BigInteger.TEN), BigInteger.ONE.shiftLeft(255).subtract(BigInteger.valueOf(19)));
    }

    private static long threads(SplittableRandom random) throws Exception {
        long seed = random.nextLong(1000);
        CompletableFuture<Long> parallel = CompletableFuture.supplyAsync(
                () -> LongStream.range(0, 2000).parallel().map(value -> value * seed % 17).sum());
        long[] told = {0};
        Object lock = new Object();
        Thread thread = new Thread(() -> {
            synchronized (lock) {
                told[0] = seed * 3;
                lock.notifyAll();
            }
        });
        synchronized (lock) {
            thread.start();
            while (told[0] != seed * 3 && seed != 0) {
                lock.wait(10_000);
            }
        }
        thread.join();
        return parallel.get() * 31 + told[0];
    }

    private static final Pattern WORDS = Pattern.compile("([a-c]+)(\\d*)(?=[x-z])");

    private static String pattern(SplittableRandom random) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < 400; i++) {
            text.append("abc123xyz".charAt(random.nextInt(9)));
        }
        int found = 0;
        Matcher matcher = WORDS.matcher(text);
        while (matcher.find()) {
            found += matcher.group(1).length() * 10 + matcher.group(2).length();
        }
        return found + " " + String.format("%08.3f|%x", found / 7.0, found);
    }

    /** Outside of the heap. */
    private static long memory(SplittableRandom random) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(64 << 10);
        for (int i = 0; i < 1000; i++) {
            buffer.putLong(random.nextInt(8000) * 8, random.nextLong());
        }
        long sum = 0;
        for (int i = 0; i < 8000; i++) {
            sum = sum * 31 + buffer.getLong(i * 8);
        }
        return sum;
    }

    private interface Turn {
        void take(long number) throws Exception;
    }

    /** A thread that works without being asked, with a rest now and then: the processors are not its own. */
    private static void go(String name, Turn turn) {
        Thread thread = new Thread(() -> {
            for (long number = 0;; number++) {
                try {
                    turn.take(number);
                } catch (Throwable problem) {
                    problem(name + ": " + problem);
                }
                TURNS.incrementAndGet();
                LockSupport.parkNanos(2_000_000);
            }
        }, name);
        thread.setDaemon(true);
        thread.start();
    }

    private static void problem(String text) {
        if (PROBLEMS.length() < 10_000) {
            PROBLEMS.append('\n').append(text);
        }
    }

    private static final byte[][] KEPT = new byte[200][];
    private static final long[] KEPT_CRC = new long[KEPT.length];

    /** Replaces one of many blocks, after a look at what it held. */
    private static void allocate(long number) {
        int at = (int) (number % KEPT.length);
        CRC32 crc = new CRC32();
        if (KEPT[at] != null) {
            crc.update(KEPT[at]);
            if (crc.getValue() != KEPT_CRC[at]) {
                problem("block " + at + " has changed");
            }
        }
        byte[] block = new byte[10_000 + (int) (number % 7) * 10_000];
        for (byte b : block) {
            if (b != 0) {
                problem("new memory is not zeros");
                break;
            }
        }
        new SplittableRandom(number).nextBytes(block);
        crc.reset();
        crc.update(block);
        KEPT[at] = block;
        KEPT_CRC[at] = crc.getValue();
    }

    /** A class that gets hot, and is forgotten. */
    private static void compile(long number) throws Exception {
        if (number % 20 != 0) {
            return;
        }
        LongUnaryOperator operator =
                (LongUnaryOperator) new Loader().define().getDeclaredConstructor().newInstance();
        long first = operator.applyAsLong(42);
        for (int i = 0; i < 60; i++) {
            long again = operator.applyAsLong(42);
            if (again != first) {
                problem("compiled otherwise: " + first + " and " + again);
            }
        }
    }

    private static long last = System.nanoTime();

    /** Time goes on, and not by leaps: a copy does not see when it was away. */
    private static void watch(long number) throws Exception {
        long now = System.nanoTime();
        if (now < last) {
            problem("nanoTime went back by " + (last - now));
        } else if (now - last > 120_000_000_000L) {
            problem("nanoTime leapt by " + (now - last));
        }
        last = now;
        Thread.sleep(3);
    }
}
