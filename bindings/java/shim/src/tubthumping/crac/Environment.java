package tubthumping.crac;

import java.lang.invoke.MethodHandle;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The environment as {@link System#getenv()} shows it: a copy that the JDK makes once.
 *
 * <p>In: {@code K=V}. Out: the JDK's copy has the new and changed values. Variables that are not
 * named keep the value they had, as in a CRaC JDK.
 *
 * <p>JVM(since 17): {@code java.lang.ProcessEnvironment} on unix keeps a map of {@code Variable} to
 * {@code Value} in {@code theEnvironment}, both {@code ExternalData}; same names on 25.
 */
final class Environment {
    private final Map<Object, Object> theEnvironment;
    private final MethodHandle variableOf;
    private final MethodHandle valueOf;
    private final MethodHandle getBytes;
    /** What need not be looked up: {@code K=V} as they are, a byte to a character. */
    private final Set<String> known = new HashSet<>();

    @SuppressWarnings("unchecked")
    Environment() throws Exception {
        Class<?> owner = Class.forName("java.lang.ProcessEnvironment");
        theEnvironment = (Map<Object, Object>) Internals.field(owner, "theEnvironment").get(null);
        variableOf = factory("java.lang.ProcessEnvironment$Variable");
        valueOf = factory("java.lang.ProcessEnvironment$Value");
        Class<?> data = Class.forName("java.lang.ProcessEnvironment$ExternalData");
        getBytes = Internals.handle(data, "getBytes");
        for (Map.Entry<Object, Object> variable : theEnvironment.entrySet()) {
            known.add(text(variable.getKey()) + '=' + text(variable.getValue()));
        }
    }

    private static MethodHandle factory(String name) throws ReflectiveOperationException {
        return Internals.handle(Class.forName(name), "valueOf", byte[].class);
    }

    void apply(List<byte[]> variables) throws Exception {
        for (byte[] variable : variables) {
            if (known.contains(text(variable))) {
                continue;
            }
            int equals = indexOfEquals(variable);
            if (equals < 0) {
                continue;
            }
            Object name = Internals.call(variableOf, Arrays.copyOf(variable, equals));
            byte[] bytes = Arrays.copyOfRange(variable, equals + 1, variable.length);
            Object value = Internals.call(valueOf, bytes);
            // Readers take no lock, so that the map is only touched where it has to be.
            if (!value.equals(theEnvironment.get(name))) {
                theEnvironment.put(name, value);
            }
        }
    }

    /** Does all of it but the change, so that what it takes is loaded. */
    void rehearse() throws Exception {
        byte[] any = {'A'};
        Object value = Internals.call(valueOf, any);
        boolean unused = value.equals(theEnvironment.get(Internals.call(variableOf, any)));
    }

    private String text(Object data) throws Exception {
        return text((byte[]) Internals.call(getBytes, data));
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.ISO_8859_1);
    }

    /** The first one that does not start the name: {@code =C:=…} has been seen. */
    private static int indexOfEquals(byte[] variable) {
        for (int i = 1; i < variable.length; i++) {
            if (variable[i] == '=') {
                return i;
            }
        }
        return -1;
    }
}
