package tubthumping.crac;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What stood after {@code tub restore DIR --}: properties, and a class to run with its arguments.
 *
 * <p>In: words, of any bytes. Out: {@code -Dname=value} as system properties; flight recordings that {@code
 * -XX:StartFlightRecording} asks for; the class's {@code main} called once the restore is over.
 *
 * <p>Not here: the environment (see {@link Environment}).
 */
final class RestoreInput {
    private static final String RECORDING = "-XX:StartFlightRecording";

    private final Map<String, String> properties = new LinkedHashMap<>();
    private String main;
    private final List<String> arguments = new ArrayList<>();
    /** Options of flight recordings to start. */
    private final List<String> recordings = new ArrayList<>();
    private String unknown;

    RestoreInput(List<byte[]> words) {
        for (byte[] bytes : words) {
            String word = decode(bytes);
            if (main != null) {
                arguments.add(word);
            } else if (word.startsWith("-D")) {
                int equals = word.indexOf('=');
                String name = word.substring(2, equals < 0 ? word.length() : equals);
                properties.put(name, equals < 0 ? "" : word.substring(equals + 1));
            } else if (isRecording(word)) {
                recordings.add(word.substring(Math.min(word.length(), RECORDING.length() + 1)));
            } else if (word.startsWith("-")) {
                // Told later: a copy that is not reseeded would be worse than one that is told late.
                unknown = word;
                return;
            } else {
                main = word;
            }
        }
    }

    /** Text in UTF-8, whatever the locale says; what is none, as the JVM reads a command line. */
    private static String decode(byte[] bytes) {
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
        } catch (CharacterCodingException e) {
            String native8Bit = System.getProperty("sun.jnu.encoding");
            Charset charset =
                    native8Bit != null && Charset.isSupported(native8Bit)
                            ? Charset.forName(native8Bit)
                            : StandardCharsets.ISO_8859_1;
            return new String(bytes, charset);
        }
    }

    /** Sets the properties; says which word is none and no class. */
    void apply() {
        for (Map.Entry<String, String> property : properties.entrySet()) {
            System.setProperty(property.getKey(), property.getValue());
        }
        if (unknown != null) {
            throw new IllegalArgumentException(
                    unknown + ": a restored JVM takes -Dname=value, " + RECORDING + ", or a class and its arguments");
        }
    }

    /** With a value behind either sign, or none. */
    private static boolean isRecording(String word) {
        return word.equals(RECORDING) || word.startsWith(RECORDING + "=") || word.startsWith(RECORDING + ":");
    }

    List<String> recordings() {
        return recordings;
    }

    boolean hasProperty(String prefix) {
        for (String name : properties.keySet()) {
            if (name.startsWith(prefix)) {
                return true;
            }
        }
        return false;
    }

    Map<String, String> properties() {
        return properties;
    }

    boolean hasMain() {
        return main != null;
    }

    /** Runs the new class; what it throws is the cause. */
    void runMain() throws Exception {
        try {
            Class<?> type = Class.forName(main, true, ClassLoader.getSystemClassLoader());
            Method method = type.getMethod("main", String[].class);
            method.setAccessible(true);
            method.invoke(null, (Object) arguments.toArray(new String[0]));
        } catch (InvocationTargetException e) {
            throw failed(e.getCause());
        } catch (ReflectiveOperationException | RuntimeException | LinkageError e) {
            throw failed(e);
        }
    }

    private Exception failed(Throwable cause) {
        return new Exception(
                "Failed to execute the new main entry: new main class = '"
                        + main
                        + "', new main arguments = "
                        + arguments
                        + ". Do not specify these if you just wish to continue the checkpointed"
                        + " execution.",
                cause);
    }
}
