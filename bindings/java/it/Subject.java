import com.sun.management.HotSpotDiagnosticMXBean;
import java.io.BufferedReader;
import java.io.Closeable;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.lang.management.RuntimeMXBean;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.channels.FileChannel;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TimeZone;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import jdk.crac.CheckpointException;
import jdk.crac.Context;
import jdk.crac.Core;
import jdk.crac.Resource;
import jdk.crac.RestoreException;
import jdk.crac.management.CRaCMXBean;
import jdk.jfr.Configuration;
import jdk.jfr.FlightRecorder;
import jdk.jfr.Recording;
import jdk.jfr.consumer.RecordingStream;

/** A process whose resources do what its standard input says, and which tells all on stdout. */
public class Subject {
    static final Map<String, Named> RESOURCES = new ConcurrentHashMap<>();
    static final List<Old> JAVAX = new ArrayList<>();
    static final List<Closeable> LEFT = new ArrayList<>();
    static final List<FileOutputStream> OPEN = new ArrayList<>();
    static final AtomicLong STREAMED = new AtomicLong();
    static volatile Instant streamedSince = Instant.MAX;
    static volatile boolean released;

    public static void main(String[] arguments) throws Exception {
        say("ready");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            List<String> words = new ArrayList<>(Arrays.asList(line.split(" ")));
            String command = words.remove(0);
            String first = words.isEmpty() ? "" : words.get(0);
            switch (command) {
                case "register" -> {
                    Named named = RESOURCES.computeIfAbsent(first, Named::new);
                    named.before = words.size() > 1 ? words.get(1) : "";
                    named.after = words.size() > 2 ? words.get(2) : "";
                    Core.getGlobalContext().register(named);
                    say("registered " + first);
                }
                case "drop" -> {
                    RESOURCES.remove(first);
                    System.gc();
                    say("dropped " + first);
                }
                case "release" -> released = true;
                case "checkpoint" -> {
                    Thread thread = new Thread(() -> checkpoint(first));
                    thread.setDaemon(true);
                    thread.start();
                }
                case "env" -> say("env " + first + "=" + System.getenv(first));
                case "bean" -> {
                    CRaCMXBean bean = CRaCMXBean.getCRaCMXBean();
                    say("bean " + bean.getRestoreTime() + " " + bean.getUptimeSinceRestore());
                }
                case "flag" ->
                        say(
                                "flag "
                                        + ManagementFactory.getPlatformMXBean(
                                                        HotSpotDiagnosticMXBean.class)
                                                .getVMOption(first)
                                                .getValue());
                case "garbage" -> {
                    List<byte[]> garbage = new ArrayList<>();
                    for (int i = 0; i < 100; i++) {
                        byte[] bytes = new byte[1 << 20];
                        Arrays.fill(bytes, (byte) 7);
                        garbage.add(bytes);
                    }
                    say("garbage " + garbage.size());
                }
                case "seed" -> {
                    // As every JVM draws it, with the agent or without.
                    SecureRandom random = SecureRandom.getInstance("SHA1PRNG");
                    random.setSeed(42);
                    say("seed " + random.nextLong());
                }
                case "register-null" -> {
                    try {
                        Core.getGlobalContext().register(null);
                        say("accepted");
                    } catch (NullPointerException e) {
                        say("refused");
                    }
                }
                case "register-equal" -> {
                    for (String name : words) {
                        Named named = new Equal(name);
                        RESOURCES.put(name, named);
                        Core.getGlobalContext().register(named);
                    }
                    say("registered");
                }
                case "register-javax" -> {
                    Old old = new Old(first, words.size() > 1);
                    JAVAX.add(old);
                    javax.crac.Core.getGlobalContext().register(old);
                    say("registered " + first);
                }
                case "checkpoint-javax" -> {
                    try {
                        javax.crac.Core.checkpointRestore();
                        say("ok");
                    } catch (javax.crac.CheckpointException e) {
                        say("javax " + Arrays.toString(e.getSuppressed()));
                    }
                }
                case "register-aside" -> {
                    Named named = RESOURCES.computeIfAbsent(first, Named::new);
                    Thread aside =
                            new Thread(
                                    () -> {
                                        Core.getGlobalContext().register(named);
                                        say("registered aside");
                                    });
                    aside.setDaemon(true);
                    aside.start();
                }
                case "leave" -> {
                    LEFT.add(
                            switch (first) {
                                case "Stream" -> leaveStream(words.get(1));
                                case "Channel" -> leaveChannel(words.get(1));
                                case "Server" -> leaveServer();
                                case "ServerChannel" -> leaveServerChannel();
                                default -> leaveDatagram();
                            });
                    say("left");
                }
                case "property" -> say("property " + first + "=" + System.getProperty(first));
                case "uptime" -> {
                    RuntimeMXBean runtime = ManagementFactory.getRuntimeMXBean();
                    say("uptime " + runtime.getStartTime() + " " + runtime.getUptime());
                }
                case "zone" -> say("zone " + TimeZone.getDefault().getID());
                case "resolve" -> say("resolve " + InetAddress.getByName(first).getHostAddress());
                case "record" -> {
                    Recording recording = new Recording(Configuration.getConfiguration("default"));
                    recording.setName(first);
                    if (words.size() > 1) {
                        recording.setDestination(Path.of(words.get(1)));
                        recording.setDumpOnExit(true);
                    }
                    recording.start();
                    say("recording " + first);
                }
                case "recordings" -> {
                    StringBuilder text = new StringBuilder("recordings");
                    for (Recording recording : FlightRecorder.getFlightRecorder().getRecordings()) {
                        text.append(' ').append(recording.getName());
                        text.append(' ').append(recording.getState());
                    }
                    say(text.toString());
                }
                case "stream" -> {
                    // Its events come every 100 ms, by flushes: the next chunk is hours away.
                    RecordingStream stream = new RecordingStream();
                    stream.enable("jdk.ThreadAllocationStatistics").withPeriod(Duration.ofMillis(100));
                    stream.onEvent(event -> {
                        if (event.getStartTime().isAfter(streamedSince)) {
                            STREAMED.incrementAndGet();
                        }
                    });
                    stream.startAsync();
                    say("streaming");
                }
                case "streamed" -> {
                    streamedSince = Instant.now();
                    STREAMED.set(0);
                    for (int i = 0; i < 200 && STREAMED.get() < 30; i++) {
                        Thread.sleep(100);
                    }
                    say("streamed " + (STREAMED.get() >= 30));
                }
                case "open" -> {
                    OPEN.add(new FileOutputStream(first, true));
                    say("opened");
                }
                case "end-main" -> {
                    say("main ends");
                    return;
                }
                default -> throw new IllegalArgumentException(line);
            }
        }
    }

    static Closeable leaveStream(String path) throws IOException {
        return new FileOutputStream(path);
    }

    static Closeable leaveChannel(String path) throws IOException {
        return FileChannel.open(
                Path.of(path), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
    }

    static Closeable leaveServer() throws IOException {
        return new ServerSocket(0, 5, InetAddress.getLoopbackAddress());
    }

    static Closeable leaveServerChannel() throws IOException {
        return ServerSocketChannel.open()
                .bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    }

    static Closeable leaveDatagram() throws IOException {
        return new DatagramSocket(0, InetAddress.getLoopbackAddress());
    }

    /** Where an exception came about, as far as it was here. */
    static String source(Throwable cause) {
        for (StackTraceElement frame : cause.getStackTrace()) {
            if (frame.getClassName().equals("Subject")) {
                return " <- " + cause.getMessage() + ", in Subject." + frame.getMethodName();
            }
        }
        return " <- " + cause.getMessage();
    }

    static void checkpoint(String name) {
        String result;
        try {
            Core.checkpointRestore();
            result = "ok";
        } catch (CheckpointException | RestoreException e) {
            StringBuilder text = new StringBuilder(e.getClass().getSimpleName());
            for (Throwable reason : e.getSuppressed()) {
                text.append(" | ").append(reason.getClass().getSimpleName());
                text.append(": ").append(String.valueOf(reason.getMessage()).replace('\n', ' '));
                if (reason.getClass().getSimpleName().startsWith("CheckpointOpen")
                        && reason.getCause() != null) {
                    text.append(source(reason.getCause()));
                }
            }
            result = text.toString();
        } catch (Throwable e) {
            result = "unexpected " + e;
        }
        String flag = Thread.interrupted() ? " (interrupted)" : "";
        say("checkpoint " + name + " " + result + flag);
    }

    static synchronized void say(String line) {
        System.out.println(line);
    }

    /** All of these are equal, which must make no difference. */
    static final class Equal extends Named {
        Equal(String name) {
            super(name);
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Equal;
        }

        @Override
        public int hashCode() {
            return 1;
        }
    }

    /** One that knows the first name of the API only. */
    record Old(String name, boolean objects) implements javax.crac.Resource {
        @Override
        public void beforeCheckpoint(javax.crac.Context<? extends javax.crac.Resource> context)
                throws Exception {
            say("before " + name + " " + (context == javax.crac.Core.getGlobalContext()));
            if (objects) {
                javax.crac.CheckpointException nested = new javax.crac.CheckpointException();
                nested.addSuppressed(new IllegalStateException(name + " objects"));
                throw nested;
            }
        }

        @Override
        public void afterRestore(javax.crac.Context<? extends javax.crac.Resource> context) {
            say("after " + name);
        }
    }

    /** Another main class, for a copy. */
    static final class Other {
        public static void main(String[] arguments) {
            String thread = Thread.currentThread().isDaemon() ? "daemon" : "user";
            say("other " + thread + " " + Arrays.toString(arguments));
            if (arguments.length == 0) {
                throw new IllegalStateException("no arguments");
            }
        }
    }

    static class Named implements Resource {
        final String name;
        volatile String before = "";
        volatile String after = "";

        Named(String name) {
            this.name = name;
        }

        @Override
        public void beforeCheckpoint(Context<? extends Resource> context) throws Exception {
            say("before " + name);
            if (context != Core.getGlobalContext()) {
                say("wrong context " + context);
            }
            act(before);
        }

        @Override
        public void afterRestore(Context<? extends Resource> context) throws Exception {
            say("after " + name);
            act(after);
        }

        private void act(String what) throws Exception {
            switch (what) {
                case "", "-" -> {}
                case "throw" -> throw new IllegalStateException(name + " objects");
                case "error" -> throw new StackOverflowError(name + " overflows");
                case "interrupt" -> throw new InterruptedException(name + " was interrupted");
                case "nested" -> {
                    CheckpointException nested = new CheckpointException();
                    nested.addSuppressed(new IllegalStateException(name + " one"));
                    nested.addSuppressed(new IllegalStateException(name + " two"));
                    throw nested;
                }
                case "nap" -> Thread.sleep(500);
                case "doze" -> {
                    // Ends by an interrupt only.
                    Thread.sleep(600_000);
                }
                case "hang" -> {
                    // Deaf to interrupts, as code that waits for a lock is.
                    while (!released) {
                        try {
                            Thread.sleep(5);
                        } catch (InterruptedException e) {
                            // Goes on.
                        }
                    }
                    say("released " + name);
                }
                case "recurse" -> {
                    checkpoint("recursive");
                }
                case "register" -> {
                    Named late = RESOURCES.computeIfAbsent("late", Named::new);
                    Core.getGlobalContext().register(late);
                }
                default -> throw new IllegalArgumentException(what);
            }
        }

        @Override
        public String toString() {
            return "resource " + name;
        }
    }
}
