package tubthumping.crac;

import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * A descriptor above the standard streams, as the kernel knows it.
 *
 * @param number its number
 * @param kind {@code regular}, {@code directory}, {@code character}, {@code block}, {@code fifo},
 *     {@code socket} or {@code unknown}
 * @param path what {@code /proc} calls it, in the bytes that the kernel has
 * @param isOwn whether it is the JVM's, and not the application's
 * @param isReadOnly whether it cannot be written
 * @param family {@code inet}, {@code unix}, or nothing
 * @param local address or path
 * @param localPort its port
 * @param remote address or path; empty where there is no peer
 * @param remotePort its port
 * @param isListening whether it waits for connections
 */
record OpenDescriptor(
        int number,
        String kind,
        byte[] path,
        boolean isOwn,
        boolean isReadOnly,
        String family,
        String local,
        String localPort,
        String remote,
        String remotePort,
        boolean isListening) {

    private static final int STRINGS = 11;

    static List<OpenDescriptor> all() {
        List<byte[]> strings = Strings.unpackRaw(Agent.openDescriptors());
        List<OpenDescriptor> all = new ArrayList<>();
        for (int i = 0; i + STRINGS <= strings.size(); i += STRINGS) {
            List<byte[]> raw = strings.subList(i, i + STRINGS);
            List<String> texts = raw.stream().map(Strings::text).toList();
            all.add(
                    new OpenDescriptor(
                            Integer.parseInt(texts.get(0)),
                            texts.get(1),
                            raw.get(2),
                            !texts.get(3).isEmpty(),
                            !texts.get(4).isEmpty(),
                            texts.get(5),
                            texts.get(6),
                            texts.get(7),
                            texts.get(8),
                            texts.get(9),
                            !texts.get(10).isEmpty()));
        }
        return all;
    }

    String name() {
        return new String(path, StandardCharsets.UTF_8);
    }

    /**
     * A path of a name as the kernel has it. Where the locale has no letters for it, each of them is a question
     * mark: enough to compare it with others, and with a pattern that has a star there; not to open it.
     */
    static Path pathOf(String name) {
        try {
            return Path.of(name);
        } catch (InvalidPathException e) {
            return Path.of(name.replaceAll("[^\\x01-\\x7f]", "?"));
        }
    }

    boolean isSocket() {
        return kind.equals("socket");
    }

    /** Of the pipes those without a name; the others count as files. */
    boolean isPipe() {
        return kind.equals("fifo") && path[0] != '/';
    }

    boolean isFile() {
        return path.length > 0 && path[0] == '/' && !isSocket();
    }

    /** In the words of a CRaC JDK for what no object of Java's stands for. */
    String description() {
        return "FD fd=" + number + " type=" + kind + " path=" + name();
    }

    /**
     * An address as Java has it, for which a v4 address in v6 clothes is one of v4.
     *
     * @return {@code null} for none
     */
    static InetAddress address(String numeric) {
        try {
            return numeric.isEmpty() ? null : InetAddress.getByName(numeric);
        } catch (UnknownHostException e) {
            // Not for the kernel's own numbers.
            return null;
        }
    }
}
