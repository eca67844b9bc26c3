package tubthumping.crac;

import java.io.Closeable;
import java.io.FileDescriptor;
import java.io.IOException;
import java.lang.reflect.Field;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.channels.Channel;
import java.nio.channels.SelectableChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/**
 * The objects to which descriptors belong. Nobody keeps a list of them, so that the heap is walked.
 *
 * <p>JVM(since 17): field {@code fd} of streams and channels, {@code Socket.impl}, {@code
 * ServerSocket.impl}, {@code DelegatingSocketImpl.delegate}, {@code FileDescriptor.fd}; same on 25.
 */
final class Owners {
    /** The further up, the more it means to its application. */
    private static final List<String> TYPES =
            List.of(
                    "java.net.Socket",
                    "java.net.ServerSocket",
                    "java.io.FileInputStream",
                    "java.io.FileOutputStream",
                    "java.io.RandomAccessFile",
                    "sun.nio.ch.SocketChannelImpl",
                    "sun.nio.ch.ServerSocketChannelImpl",
                    "sun.nio.ch.DatagramChannelImpl",
                    "sun.nio.ch.SourceChannelImpl",
                    "sun.nio.ch.SinkChannelImpl",
                    "sun.nio.ch.FileChannelImpl",
                    "sun.nio.ch.AsynchronousFileChannelImpl",
                    "sun.nio.ch.AsynchronousSocketChannelImpl",
                    "sun.nio.ch.AsynchronousServerSocketChannelImpl",
                    "java.net.SocketImpl",
                    "java.io.FileDescriptor");

    private final Map<Integer, Object> owners = new HashMap<>();
    private final List<Selector> selectors = new ArrayList<>();

    private Owners() {}

    /** All of them now. None where the JVM cannot tell: then descriptors have numbers only. */
    static Owners find() {
        List<Class<?>> types = new ArrayList<>();
        for (String name : TYPES) {
            Class<?> type = Internals.type(name);
            if (type != null) {
                types.add(type);
            }
        }
        types.add(Selector.class);
        Owners found = new Owners();
        Object[] objects = Agent.instances(types.toArray(new Class<?>[0]));
        if (objects == null) {
            return found;
        }
        Map<Integer, Integer> ranks = new HashMap<>();
        for (Object object : objects) {
            if (object instanceof Selector selector) {
                found.selectors.add(selector);
                continue;
            }
            int number = numberOf(object);
            int rank = 0;
            while (rank < types.size() && !types.get(rank).isInstance(object)) {
                rank++;
            }
            if (number > 2 && rank < ranks.getOrDefault(number, Integer.MAX_VALUE)) {
                ranks.put(number, rank);
                found.owners.put(number, object);
            }
        }
        return found;
    }

    /** What a descriptor belongs to; {@code null} where native code has opened it. */
    Object of(int number) {
        return owners.get(number);
    }

    /** Selectors for which channels with these numbers are registered, as CRaC words it. */
    List<String> busySelectors(Set<Integer> numbers) {
        List<String> busy = new ArrayList<>();
        for (Selector selector : selectors) {
            List<Channel> channels = new ArrayList<>();
            boolean concerned = false;
            try {
                for (SelectionKey key : Set.copyOf(selector.keys())) {
                    channels.add(key.channel());
                    concerned |= numbers.contains(numberOf(key.channel()));
                }
            } catch (RuntimeException e) {
                // Closed meanwhile.
                continue;
            }
            if (concerned) {
                busy.add("Selector " + selector + " has registered keys from channels: " + channels);
            }
        }
        return busy;
    }

    /** As a CRaC JDK names an owner: without a look-up of names. */
    static String describe(Object owner) {
        if (owner instanceof Socket socket) {
            int port = socket.getPort();
            return describe(owner, socket.getInetAddress(), port, socket.getLocalPort());
        }
        if (owner instanceof ServerSocket socket) {
            return describe(owner, socket.getInetAddress(), 0, socket.getLocalPort());
        }
        return Failures.describe(owner);
    }

    private static String describe(Object owner, InetAddress address, int port, int localPort) {
        String host = address == null ? "" : address.getHostAddress();
        String ports = ",port=" + port + ",localport=" + localPort;
        return owner.getClass().getName() + "[addr=/" + host + ports + "]";
    }

    /**
     * Closes what a descriptor belongs to, so that a later use throws.
     *
     * @throws IOException if that fails
     */
    static void close(Object owner) throws IOException {
        if (owner instanceof SelectableChannel channel && channel.isRegistered()) {
            closeRegistered(channel);
            return;
        }
        if (owner instanceof Closeable closeable) {
            closeable.close();
            return;
        }
        try {
            Internals.call(Internals.method(FileDescriptor.class, "close"), owner);
        } catch (IOException e) {
            throw e;
        } catch (Exception e) {
            throw new IOException(e);
        }
    }

    /**
     * Closes a channel together with its selectors: each has to let go of it at its next selection,
     * for which it may wait for ever otherwise. A selector that nobody uses is not waited for long.
     *
     * <p>JVM(since 17): {@code AbstractSelectableChannel.keys}; same on 25.
     */
    private static void closeRegistered(SelectableChannel channel) throws IOException {
        SelectionKey[] keys;
        try {
            keys = (SelectionKey[]) value(channel, "keys");
        } catch (ReflectiveOperationException | RuntimeException e) {
            keys = null;
        }
        List<Selector> selectors = new ArrayList<>();
        for (SelectionKey key : keys == null ? new SelectionKey[0] : keys) {
            if (key != null) {
                selectors.add(key.selector());
            }
        }
        channel.close();
        selectors.forEach(Selector::wakeup);
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(1);
        while (channel.isRegistered() && System.nanoTime() - end < 0) {
            LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(1));
        }
    }

    /** The number of a descriptor, or of what holds one; -1 for none. */
    static int numberOf(Object owner) {
        try {
            Object inner = owner;
            for (String field : List.of("impl", "delegate")) {
                Object next = inner instanceof FileDescriptor ? null : value(inner, field);
                inner = next == null ? inner : next;
            }
            for (String field : List.of("fd", "fdObj")) {
                Object descriptor = inner instanceof FileDescriptor ? inner : value(inner, field);
                if (descriptor instanceof FileDescriptor) {
                    return (int) value(descriptor, "fd");
                }
            }
            return -1;
        } catch (ReflectiveOperationException | RuntimeException e) {
            // One that cannot be looked into is none that can be told of.
            return -1;
        }
    }

    private static Object value(Object owner, String name) throws ReflectiveOperationException {
        for (Class<?> type = owner.getClass(); type != null; type = type.getSuperclass()) {
            // A subclass of the application's may have a field of that name too.
            boolean ours = type.getModule() == Object.class.getModule();
            for (Field field : ours ? type.getDeclaredFields() : new Field[0]) {
                if (field.getName().equals(name)) {
                    return Internals.field(type, name).get(owner);
                }
            }
        }
        return null;
    }
}
