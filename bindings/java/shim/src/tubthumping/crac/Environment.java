package tubthumping.crac;

import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/**
 * The environment as {@link System#getenv()} shows it: a copy that the JDK makes once.
 *
 * <p>In: {@code K=V}. Out: the JDK's copy has the new and changed values. Variables that are not
 * named keep the value they had, as in a CRaC JDK.
 *
 * <p>JVM(since 17): {@code java.lang.ProcessEnvironment} on unix keeps a map of {@code Variable} to
 * {@code Value} in {@code theEnvironment}; same names on 25.
 */
final class Environment {
    private final Map<Object, Object> theEnvironment;
    private final Method variableOf;
    private final Method valueOf;

    @SuppressWarnings("unchecked")
    Environment() throws ReflectiveOperationException {
        Internals.open(Object.class.getModule(), "java.lang");
        Class<?> processEnvironment = Class.forName("java.lang.ProcessEnvironment");
        Field field = processEnvironment.getDeclaredField("theEnvironment");
        field.setAccessible(true);
        theEnvironment = (Map<Object, Object>) field.get(null);
        variableOf = factory("java.lang.ProcessEnvironment$Variable");
        valueOf = factory("java.lang.ProcessEnvironment$Value");
    }

    private static Method factory(String name) throws ReflectiveOperationException {
        Method method = Class.forName(name).getDeclaredMethod("valueOf", byte[].class);
        method.setAccessible(true);
        return method;
    }

    void apply(List<byte[]> variables) throws ReflectiveOperationException {
        for (byte[] variable : variables) {
            int equals = indexOfEquals(variable);
            if (equals < 0) {
                continue;
            }
            Object name = variableOf.invoke(null, (Object) Arrays.copyOf(variable, equals));
            byte[] bytes = Arrays.copyOfRange(variable, equals + 1, variable.length);
            Object value = valueOf.invoke(null, (Object) bytes);
            // Readers take no lock, so that the map is only touched where it has to be.
            if (!value.equals(theEnvironment.get(name))) {
                theEnvironment.put(name, value);
            }
        }
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
