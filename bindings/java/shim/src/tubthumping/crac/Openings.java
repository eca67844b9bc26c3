package tubthumping.crac;

import java.io.FileDescriptor;
import java.lang.reflect.Field;

/**
 * Where descriptors were opened, for the exceptions that name them: with {@code
 * -Djdk.crac.collect-fd-stacktraces=true} only, since it costs an exception for each.
 *
 * <p>JVM(since 17): {@code FileDescriptor.fd}, and a field {@code fd} of the classes that {@code
 * hooks.rs} names; same on 25.
 */
final class Openings {
    static final String PROPERTY = "jdk.crac.collect-fd-stacktraces";

    private static final WeakIdentityMap<Object, Exception> OPENED = new WeakIdentityMap<>();

    private Openings() {}

    static boolean areCollected() {
        return Boolean.getBoolean(PROPERTY);
    }

    static void opened(Object owner) {
        String by = Thread.currentThread().getName();
        OPENED.put(
                owner,
                new Exception(
                        "This file descriptor was created by "
                                + by
                                + " at epoch:"
                                + System.currentTimeMillis()
                                + " here"));
    }

    /** Where a descriptor was opened; {@code null} where that is not known. */
    static Exception of(int number) {
        Exception latest = null;
        for (Object owner : OPENED.keys()) {
            if (numberOf(owner) == number) {
                latest = OPENED.get(owner);
            }
        }
        return latest;
    }

    private static int numberOf(Object owner) {
        try {
            Object descriptor = owner instanceof FileDescriptor ? owner : value(owner, "fd");
            return descriptor == null ? -1 : (int) value(descriptor, "fd");
        } catch (ReflectiveOperationException | RuntimeException e) {
            // One that cannot be looked into is none that can be told of.
            return -1;
        }
    }

    private static Object value(Object owner, String name) throws ReflectiveOperationException {
        for (Class<?> type = owner.getClass(); type != null; type = type.getSuperclass()) {
            for (Field field : type.getDeclaredFields()) {
                if (field.getName().equals(name)) {
                    return Internals.field(type, name).get(owner);
                }
            }
        }
        return null;
    }
}
