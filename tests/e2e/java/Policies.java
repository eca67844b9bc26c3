import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.reflect.AccessibleObject;
import java.lang.reflect.Constructor;
import java.lang.reflect.Method;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Pipe;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.TreeMap;
import jdk.crac.CheckpointException;
import jdk.crac.Core;

/**
 * Leaves descriptors of every kind open: first is refused, with the texts of a CRaC JDK, then follows
 * the rules of a file. {@code jdk.crac.resource-policies} names the file {@code policy}, which this
 * program writes wrongly first; the test has the right rules in {@code rules}.
 */
public final class Policies {
    private static final InetAddress LOOPBACK = InetAddress.getLoopbackAddress();
    private static volatile boolean goesOn;

    public static void main(String[] args) throws Exception {
        Path dir = Path.of("").toAbsolutePath();
        Files.writeString(dir.resolve("input.txt"), "0123456789");
        Files.writeString(dir.resolve("closed.txt"), "0123456789");
        FileOutputStream log = new FileOutputStream("app.log", true);
        log.write("before\n".getBytes());
        FileInputStream input = new FileInputStream("input.txt");
        input.readNBytes(3);
        FileInputStream closed = new FileInputStream("closed.txt");
        RandomAccessFile data = new RandomAccessFile("data.bin", "rw");
        data.writeLong(17);
        ServerSocket server = new ServerSocket(0, 5, LOOPBACK);
        Socket client = new Socket(LOOPBACK, server.getLocalPort());
        Socket accepted = server.accept();
        ServerSocketChannel named = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        named.bind(UnixDomainSocketAddress.of(dir.resolve("named.sock")));
        Selector selector = Selector.open();
        ServerSocketChannel channel = ServerSocketChannel.open().bind(new InetSocketAddress(LOOPBACK, 0));
        channel.configureBlocking(false).register(selector, SelectionKey.OP_ACCEPT);
        Pipe pipe = Pipe.open();
        pipe.sink().write(ByteBuffer.wrap("in the pipe".getBytes()));

        Path policy = dir.resolve("policy");
        refusals(policy, dir, List.of(client, accepted), channel, selector);
        malformed(policy);
        matching();
        Files.copy(dir.resolve("rules"), policy, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
        Life.register(() -> { }, () -> goesOn = true);
        Life.ready();

        String life = Life.hear();
        // Until the hooks run nothing is promised of what is left open.
        Life.eventually("after-hooks", () -> goesOn);
        Life.step("log", () -> {
            log.write("after\n".getBytes());
            Life.same("log", "before\nbetween\nafter\n", Files.readString(dir.resolve("app.log")));
        });
        if (life.contains("input-gone")) {
            Life.throwing("input", IOException.class, input::read);
        } else {
            // Where it stood, in what the file is now.
            Life.step("input", () -> Life.same("input", "defg", new String(input.readAllBytes())));
        }
        Life.throwing("closed stream", IOException.class, closed::read);
        if (life.contains("data-closed")) {
            Life.throwing("data", IOException.class, data::getFilePointer);
        } else {
            Life.step("data", () -> Life.same("position of data", 8L, data.getFilePointer()));
        }
        Life.throwing("client", SocketException.class, () -> client.getOutputStream());
        Life.throwing("accepted", SocketException.class, () -> accepted.getInputStream().read());
        Life.step("server", () -> {
            try (Socket one = new Socket(LOOPBACK, server.getLocalPort()); Socket other = server.accept()) {
                other.getOutputStream().write('x');
                Life.same("through the server", (int) 'x', one.getInputStream().read());
            }
        });
        Life.step("selector", () -> {
            try (SocketChannel one = SocketChannel.open(channel.getLocalAddress())) {
                Life.same("selected", 1, selector.select(10_000));
            }
        });
        Life.step("named", () -> {
            try (SocketChannel one = SocketChannel.open(named.getLocalAddress()); SocketChannel other = named.accept()) {
                Life.check(one.isConnected() && other.isConnected(), "named socket");
            }
        });
        Life.step("pipe", () -> {
            ByteBuffer read = ByteBuffer.allocate(100);
            pipe.source().read(read);
            Life.same("pipe", "in the pipe", new String(read.array(), 0, read.position()));
        });
        Life.verdict();
    }

    /** Without rules each descriptor is named as a CRaC JDK names it, once. */
    private static void refusals(
            Path policy, Path dir, List<Socket> sockets, ServerSocketChannel channel, Selector selector)
            throws Exception {
        Files.writeString(policy, "# no rules\n");
        TreeMap<String, Integer> found = new TreeMap<>();
        for (Throwable refusal : refused()) {
            found.merge(refusal.getClass().getSimpleName() + ": " + refusal.getMessage(), 1, Integer::sum);
        }
        List<String> expected = new ArrayList<>();
        for (String file : List.of("app.log", "input.txt", "closed.txt", "data.bin")) {
            expected.add("CheckpointOpenFileException: " + dir.resolve(file));
        }
        for (Socket socket : sockets) {
            expected.add("CheckpointOpenSocketException: java.net.Socket[addr=/127.0.0.1,port=" + socket.getPort()
                    + ",localport=" + socket.getLocalPort() + "]");
        }
        expected.add("CheckpointOpenSocketException: " + channel);
        expected.add("BusySelectorException: Selector " + selector + " has registered keys from channels: ["
                + channel + "]");
        for (String text : expected) {
            Life.same(text + " in " + found, 1, found.remove(text));
        }
        int servers = 0;
        int pipes = 0;
        for (String text : found.keySet()) {
            if (text.matches("CheckpointOpenSocketException: [A-Za-z0-9.$]+\\[addr=[/0-9a-f:.]+,port=0,localport=[0-9]+\\]")) {
                servers++;
            } else if (text.matches("CheckpointOpenSocketException: sun.nio.ch.ServerSocketChannelImpl\\[.*named.sock\\]")) {
                servers++;
            } else if (text.startsWith("CheckpointOpenResourceException: FD fd=") && text.contains("pipe:[")) {
                pipes++;
            } else {
                Life.check(false, "unexpected " + text);
            }
        }
        Life.same("servers in " + found, 2, servers);
        Life.same("ends of pipes in " + found, 2, pipes);
    }

    /** What is not understood is named with its lines, before anything is done. */
    private static void malformed(Path policy) throws Exception {
        String on = "Invalid rule in policies file " + policy + " on lines ";
        for (String[] one : cases("malformed")) {
            Files.writeString(policy, one[1]);
            String found = refused()[0].getMessage();
            Life.check(found.contains(on + one[0]), found + " instead of " + one[0]);
        }
        Files.delete(policy);
        String text = "File " + policy + " used in property jdk.crac.resource-policies does not exist";
        String found = refused()[0].getMessage();
        Life.check(found.contains(text), found + " instead of " + text);
    }

    /** Descriptors as the kernel would tell of them; the parser of other languages has the same cases. */
    private static void matching() throws Exception {
        Class<?> policies = Class.forName("tubthumping.crac.ResourcePolicies", true, null);
        Class<?> descriptor = Class.forName("tubthumping.crac.OpenDescriptor", true, null);
        Method parse = policies.getDeclaredMethod("parse", String.class, String.class);
        Method of = policies.getDeclaredMethod("of", descriptor);
        Constructor<?> make = descriptor.getDeclaredConstructors()[0];
        for (AccessibleObject hidden : List.of(parse, of, make)) {
            hidden.setAccessible(true);
        }
        for (String[] one : cases("matching")) {
            String[] parts = one[1].split(">>>\n");
            Object rules = parse.invoke(null, "FILE", parts[0]);
            for (String line : parts[1].split("\n")) {
                String[] sides = line.split("=>");
                String[] fields = Arrays.copyOf(sides[0].split("\\|"), 9);
                for (int i = 0; i < fields.length; i++) {
                    fields[i] = fields[i] == null ? "" : fields[i].trim();
                }
                Object rule = of.invoke(rules, make.newInstance(
                        Integer.parseInt(fields[0]), fields[1], fields[2].getBytes(StandardCharsets.UTF_8),
                        false, false, fields[3], fields[4], fields[5], fields[6], fields[7],
                        fields[8].equals("listening")));
                Life.same(one[0] + ": " + line, sides[1].trim(), shown(rule));
            }
        }
    }

    private static String shown(Object rule) throws Exception {
        if (rule == null) {
            return "none";
        }
        Method action = rule.getClass().getDeclaredMethod("action");
        Method warns = rule.getClass().getDeclaredMethod("warns");
        action.setAccessible(true);
        warns.setAccessible(true);
        String quiet = (boolean) warns.invoke(rule) ? "" : " quiet";
        return action.invoke(rule).toString().toLowerCase(Locale.ROOT) + quiet;
    }

    /** Title and text of each case of a file in tests/fixtures/policies. */
    private static List<String[]> cases(String file) throws IOException {
        String[] cases = Files.readString(Path.of(file)).split("=== ");
        return Arrays.stream(cases).skip(1).map(one -> one.split("\n", 2)).toList();
    }

    private static Throwable[] refused() throws Exception {
        try {
            Core.checkpointRestore();
        } catch (CheckpointException e) {
            return e.getSuppressed();
        }
        throw new IllegalStateException("a checkpoint was taken");
    }
}
