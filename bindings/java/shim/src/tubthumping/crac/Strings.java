package tubthumping.crac;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Lists of strings as one array of bytes, each string ended by NUL: the only thing that crosses
 * the border to the native half, so that the border needs a handful of JNI functions and no
 * object of Java's is taken apart in native code.
 */
final class Strings {
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

    Strings add(Object string) {
        // A NUL inside would end the string early; the symbol for it says what was there.
        String text = String.valueOf(string).replace('\0', '\u2400');
        bytes.writeBytes(text.getBytes(StandardCharsets.UTF_8));
        bytes.write(0);
        return this;
    }

    Strings addAll(Iterable<?> strings) {
        strings.forEach(this::add);
        return this;
    }

    byte[] pack() {
        return bytes.toByteArray();
    }

    /** The strings as they came: an environment may hold bytes that are no text. */
    static List<byte[]> unpackRaw(byte[] packed) {
        List<byte[]> strings = new ArrayList<>();
        // A search that a warm JVM has compiled, where a loop of ours would be interpreted.
        String text = new String(packed, StandardCharsets.ISO_8859_1);
        int start = 0;
        for (int end; (end = text.indexOf('\0', start)) >= 0; start = end + 1) {
            strings.add(Arrays.copyOfRange(packed, start, end));
        }
        return strings;
    }

    static String text(byte[] string) {
        return new String(string, StandardCharsets.UTF_8);
    }
}
