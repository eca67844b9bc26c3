import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.net.URL;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousServerSocketChannel;
import java.nio.channels.AsynchronousSocketChannel;
import java.nio.channels.Selector;
import java.nio.channels.spi.SelectorProvider;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardWatchEventKinds;
import java.nio.file.WatchKey;
import java.nio.file.WatchService;
import java.util.List;
import java.util.TimeZone;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.jar.JarEntry;
import java.util.jar.JarOutputStream;
import jdk.jfr.Configuration;
import jdk.jfr.FlightRecorder;
import jdk.jfr.Recording;
import jdk.jfr.RecordingState;

/**
 * Has the JDK use whatever holds descriptors, memory files or caches of its own, and looks in each life
 * whether that still works.
 */
public final class Inside {
    private static final LinkedBlockingQueue<Integer> ACCEPTED = new LinkedBlockingQueue<>();
    private static final Path DIR = Path.of("").toAbsolutePath();
    private static volatile int cycles;
    /** In the first image, and ended by the first copy. */
    private static Process child;

    public static void main(String[] args) throws Exception {
        Path watched = Files.createDirectory(DIR.resolve("watched"));
        WatchService service = FileSystems.getDefault().newWatchService();
        watched.register(service, StandardWatchEventKinds.ENTRY_CREATE);
        URL inJar = makeJar(DIR.resolve("lib.jar"));
        ServerSocket server = new ServerSocket(0, 5, InetAddress.getLoopbackAddress());
        startAccepting(server);
        Recording recording = new Recording(Configuration.getConfiguration("default"));
        recording.setName("inside");
        recording.start();
        Constructor<?> polling = Class.forName("sun.nio.ch.PollSelectorProvider").getDeclaredConstructor();
        polling.setAccessible(true);
        Selector selector = ((SelectorProvider) polling.newInstance()).openSelector();
        child = new ProcessBuilder("sleep", "1000").inheritIO().start();
        Life.register(() -> { }, () -> cycles++);
        look("0", recording, service, watched, inJar, server);
        Life.ready();
        String heard = "";
        while (!heard.equals("end")) {
            String before = heard;
            Life.eventually("a word", () -> !Life.hear().equals(before));
            heard = Life.hear();
            if (heard.startsWith("look ")) {
                String life = heard.substring(5);
                Life.eventually("after-hooks", () -> cycles == Integer.parseInt(life));
                look(life, recording, service, watched, inJar, server);
                Life.step("selector", () -> Life.same("selected", 0, selector.selectNow()));
                System.out.println("looked " + life);
            }
        }
        Life.verdict();
    }

    private static void look(
            String life, Recording recording, WatchService service, Path watched, URL inJar, ServerSocket server) {
        Life.step("watch service", () -> {
            Files.createFile(watched.resolve("file-" + life + "-" + System.nanoTime()));
            WatchKey key = service.poll(30, TimeUnit.SECONDS);
            Life.check(key != null && !key.pollEvents().isEmpty() && key.reset(), "no event of the watch service");
        });
        Life.step("jar", () -> {
            try (InputStream stream = inJar.openStream()) {
                Life.same("in the jar", "entry", new String(stream.readAllBytes()));
            }
        });
        Life.step("accepting", () -> {
            try (Socket socket = new Socket(server.getInetAddress(), server.getLocalPort())) {
                socket.getOutputStream().write(42);
                Life.same("accepted", 42, ACCEPTED.poll(30, TimeUnit.SECONDS));
            }
        });
        Life.step("asynchronous channels", () -> {
            // The group behind them stays, and with it a pipe.
            try (AsynchronousServerSocketChannel listener = AsynchronousServerSocketChannel.open();
                    AsynchronousSocketChannel one = AsynchronousSocketChannel.open()) {
                listener.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
                Future<AsynchronousSocketChannel> accepted = listener.accept();
                one.connect(listener.getLocalAddress()).get(30, TimeUnit.SECONDS);
                try (AsynchronousSocketChannel other = accepted.get(30, TimeUnit.SECONDS)) {
                    one.write(ByteBuffer.wrap(new byte[] {42})).get(30, TimeUnit.SECONDS);
                    ByteBuffer read = ByteBuffer.allocate(1);
                    other.read(read).get(30, TimeUnit.SECONDS);
                    Life.same("read", (byte) 42, read.get(0));
                }
            }
        });
        Life.step("flight recorder", () -> {
            List<Recording> all = FlightRecorder.getFlightRecorder().getRecordings();
            List<Recording> running = all.stream().filter(it -> it.getState() == RecordingState.RUNNING).toList();
            Life.same("recordings that run", 1, running.size());
            Life.same("name", "inside", running.get(0).getName());
            Life.check(running.get(0) == recording && recording.getId() == 1, "it is another one");
            Path dump = DIR.resolve("dump-" + life + ".jfr");
            running.get(0).dump(dump);
            Life.check(Files.size(dump) > 1000, "a dump of " + Files.size(dump) + " bytes");
        });
        Life.step("log", () -> {
            Path log = DIR.resolve("gc.log");
            long before = Files.size(log);
            System.gc();
            Life.eventually("more in the log", () -> Files.size(log) > before);
        });
        Life.step("host names", () ->
                Life.same("address", "127.0.0." + (Integer.parseInt(life) + 1),
                        InetAddress.getByName("host.of.the.test").getHostAddress()));
        Life.step("environment", () -> {
            Life.same("time zone", life.equals("0") ? "UTC" : "Asia/Tokyo", TimeZone.getDefault().getID());
            Process child = new ProcessBuilder("sh", "-c", "echo $TZ").start();
            String said = new String(child.getInputStream().readAllBytes()).trim();
            Life.same("child's end", 0, child.waitFor());
            Life.same("child's time zone", life.equals("0") ? "UTC" : "Asia/Tokyo", said);
        });
        Life.step("own process", () -> {
            ProcessHandle own = ProcessHandle.current();
            Life.same("id", ManagementFactory.getRuntimeMXBean().getPid(), own.pid());
            Life.same("id in /proc", Path.of(Long.toString(own.pid())), Path.of("/proc/self").toRealPath().getFileName());
            Life.check(own.isAlive(), "the own process is not alive");
            Life.same("the own process by its id", own, ProcessHandle.of(own.pid()).orElseThrow());
        });
        Life.step("child", () -> {
            boolean lives = Integer.parseInt(life) < 2;
            Life.same("the child lives", lives, child.isAlive());
            Life.same("by its handle", lives, child.toHandle().isAlive());
            Life.same("children", lives ? 1L : 0L, ProcessHandle.current().children().count());
            if (life.equals("1")) {
                child.destroy();
                Life.check(child.waitFor(30, TimeUnit.SECONDS), "the child does not end");
                Life.same("the child's end", 128 + 15, child.exitValue());
            }
        });
        Life.step("heap dump", () -> {
            Path dump = DIR.resolve("heap-" + life + ".hprof");
            ManagementFactory.getPlatformMXBean(com.sun.management.HotSpotDiagnosticMXBean.class)
                    .dumpHeap(dump.toString(), true);
            Life.check(Files.size(dump) > 100_000, "a heap of " + Files.size(dump) + " bytes");
            Files.delete(dump);
        });
    }

    /** On a virtual thread where the JDK has them. */
    private static void startAccepting(ServerSocket server) throws Exception {
        Runnable accepting = () -> {
            while (true) {
                try (Socket socket = server.accept()) {
                    ACCEPTED.add(socket.getInputStream().read());
                } catch (Exception e) {
                    System.out.println("cannot accept: " + e);
                    return;
                }
            }
        };
        try {
            Thread.class.getMethod("startVirtualThread", Runnable.class).invoke(null, accepting);
        } catch (NoSuchMethodException e) {
            Thread thread = new Thread(accepting);
            thread.setDaemon(true);
            thread.start();
        } catch (InvocationTargetException e) {
            throw new IllegalStateException(e.getCause());
        }
    }

    private static URL makeJar(Path jar) throws Exception {
        try (JarOutputStream out = new JarOutputStream(Files.newOutputStream(jar))) {
            out.putNextEntry(new JarEntry("entry.txt"));
            out.write("entry".getBytes());
        }
        return new URI("jar:" + jar.toUri() + "!/entry.txt").toURL();
    }
}
