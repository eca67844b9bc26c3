import com.sun.net.httpserver.HttpServer;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.lang.management.ManagementFactory;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;
import javax.management.ObjectName;

/**
 * A web service that takes part in checkpoints: {@code Service PORT MODE}.
 *
 * <p>It finds {@code jdk.crac} by reflection, so that it compiles and runs on a JDK that has none.
 * Modes: {@code plain}; {@code throws} and {@code hangs} (a second resource does so, the first time);
 * {@code file} and {@code socket} (left open in the application's name); {@code draws} (random numbers,
 * see {@link Draws}).
 */
public final class Service {
    private static final AtomicLong COUNT = new AtomicLong();
    private static final StringBuffer TOLD = new StringBuffer();
    private static HttpServer server;
    private static Object keep;
    private static Draws draws;
    private static volatile boolean restored;

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        String mode = args[1];
        listen(port);
        register("server", () -> server.stop(0), () -> {
            String other = System.getenv("SERVICE_PORT");
            restored = true;
            listen(other == null ? port : Integer.parseInt(other));
        });
        switch (mode) {
            case "throws":
                register("moody", () -> {
                    throw new IllegalStateException("not in the mood");
                }, () -> { });
                break;
            case "hangs":
                register("sleepy", () -> Thread.sleep(3_600_000), () -> { });
                break;
            case "file":
                keep = new FileOutputStream(args[2], true);
                break;
            case "socket":
                keep = new ServerSocket(0, 5, java.net.InetAddress.getLoopbackAddress());
                break;
            case "draws":
                draws = new Draws();
                draws.all();
                break;
            default:
                break;
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("shutdown hook")));
        System.out.println("ready");
    }

    /** Whether the hooks have run, in a copy or not. */
    static boolean isRestored() {
        return restored;
    }

    private static synchronized void listen(int port) throws IOException {
        HttpServer fresh = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 100);
        fresh.setExecutor(Executors.newFixedThreadPool(4, task -> {
            Thread thread = new Thread(task, "answering");
            thread.setDaemon(true);
            return thread;
        }));
        fresh.createContext("/", exchange -> {
            String answer;
            try {
                answer = answer(exchange.getRequestURI().getPath(), exchange.getRequestURI().getQuery());
            } catch (Throwable problem) {
                answer = "problem: " + problem;
            }
            byte[] bytes = answer.getBytes(StandardCharsets.UTF_8);
            // For this server 0 means "unknown" and -1 means none.
            exchange.sendResponseHeaders(200, bytes.length == 0 ? -1 : bytes.length);
            try (OutputStream body = exchange.getResponseBody()) {
                body.write(bytes);
            }
        });
        fresh.start();
        server = fresh;
    }

    private static String answer(String path, String query) throws Exception {
        switch (path) {
            case "/count":
                return Long.toString(COUNT.incrementAndGet());
            case "/env":
                return String.valueOf(System.getenv(query));
            case "/told":
                return TOLD.toString();
            case "/checkpoint":
                // When this has been answered: the before-hook stops the server.
                new Thread(() -> {
                    try {
                        Thread.sleep(500);
                        Class.forName("jdk.crac.Core").getMethod("checkpointRestore").invoke(null);
                    } catch (Exception e) {
                        System.out.println("no checkpoint: " + e.getCause());
                    }
                }).start();
                return "asked for";
            case "/pid":
                return Long.toString(ProcessHandle.current().pid());
            case "/restored":
                return String.valueOf(ManagementFactory.getPlatformMBeanServer()
                        .getAttribute(new ObjectName("jdk.management:type=CRaC"), "RestoreTime"));
            case "/draws":
                return draws.all();
            case "/stream":
                return draws.streamedSince(Long.parseLong(query));
            case "/work":
                // Allocation, garbage collection, compiled loops, a new thread.
                long[] sum = {0};
                Thread worker = new Thread(() -> {
                    for (int i = 0; i < 200_000; i++) {
                        sum[0] += new StringBuilder().append(i).reverse().length();
                    }
                });
                worker.start();
                worker.join();
                System.gc();
                return Long.toString(sum[0]);
            default:
                return "hello";
        }
    }

    /** Another main class, for a copy: tells what it was given, reads a line, ends the JVM. */
    static final class Farewell {
        public static void main(String[] args) throws IOException {
            byte[] line = new byte[100];
            int read = System.in.read(line);
            String told = read < 0 ? "nothing" : new String(line, 0, read, StandardCharsets.UTF_8).trim();
            System.out.println("farewell " + String.join("|", args) + " to " + System.getProperty("whom")
                    + " from " + System.getenv("WHERE") + ", who said " + told);
            System.exit(7);
        }
    }

    private interface Step {
        void run() throws Exception;
    }

    /** Resources are held weakly by the contract, so they are kept here. */
    private static final java.util.List<Object> RESOURCES = new java.util.ArrayList<>();

    private static void register(String name, Step before, Step after) throws Exception {
        Class<?> resource;
        try {
            resource = Class.forName("jdk.crac.Resource");
        } catch (ClassNotFoundException noCrac) {
            return;
        }
        Object proxy = Proxy.newProxyInstance(Service.class.getClassLoader(), new Class<?>[] {resource},
                (self, method, arguments) -> {
                    switch (method.getName()) {
                        case "beforeCheckpoint":
                            TOLD.append("before ").append(name).append('\n');
                            before.run();
                            return null;
                        case "afterRestore":
                            TOLD.append("after ").append(name).append('\n');
                            after.run();
                            return null;
                        case "hashCode":
                            return System.identityHashCode(self);
                        case "equals":
                            return self == arguments[0];
                        default:
                            return "Service." + name;
                    }
                });
        RESOURCES.add(proxy);
        Object context = Class.forName("jdk.crac.Core").getMethod("getGlobalContext").invoke(null);
        try {
            Class.forName("jdk.crac.Context").getMethod("register", resource).invoke(context, proxy);
        } catch (InvocationTargetException e) {
            throw new IllegalStateException(e.getCause());
        }
    }
}
