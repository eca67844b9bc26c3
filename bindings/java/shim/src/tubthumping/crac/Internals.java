package tubthumping.crac;

import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;

/** Opens packages of the JDK that the resources of this package need, and no others. */
final class Internals {
    private static Object unsafe;
    private static MethodHandle shouldBeInitialized;

    private Internals() {}

    static void open(Module module, String name) {
        byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
        if (!Agent.openPackage(module, bytes, Internals.class.getModule())) {
            throw new IllegalStateException(module + ": package " + name + " cannot be opened");
        }
    }

    /** A class of the JDK's, not started by this; {@code null} where there is none. */
    static Class<?> type(String name) {
        try {
            return Class.forName(name, false, ClassLoader.getSystemClassLoader());
        } catch (ClassNotFoundException e) {
            return null;
        }
    }

    /** A field of a class of the JDK's, open to us. */
    static Field field(Class<?> owner, String name) throws NoSuchFieldException {
        open(owner.getModule(), owner.getPackageName());
        Field field = owner.getDeclaredField(name);
        field.setAccessible(true);
        return field;
    }

    /** The same for one that some releases have, {@code null} on the others. */
    static Field fieldIfAny(Class<?> owner, String name) {
        try {
            return field(owner, name);
        } catch (NoSuchFieldException e) {
            return null;
        }
    }

    /** A method of a class of the JDK's, open to us. */
    static Method method(Class<?> owner, String name, Class<?>... parameters)
            throws NoSuchMethodException {
        open(owner.getModule(), owner.getPackageName());
        Method method = owner.getDeclaredMethod(name, parameters);
        method.setAccessible(true);
        return method;
    }

    /** Whether the class of a static field has been started; to read the field would start it. */
    static boolean isInUse(Field field) throws Exception {
        return isInUse(field.getDeclaringClass());
    }

    /**
     * Whether a class has been started.
     *
     * <p>JVM(since 17): {@code jdk.internal.misc.Unsafe.shouldBeInitialized}; same on 25.
     */
    static synchronized boolean isInUse(Class<?> type) throws Exception {
        if (unsafe == null) {
            Class<?> owner = type("jdk.internal.misc.Unsafe");
            shouldBeInitialized = handle(owner, "shouldBeInitialized", Class.class);
            unsafe = method(owner, "getUnsafe").invoke(null);
        }
        return !(boolean) call(shouldBeInitialized, unsafe, type);
    }

    /**
     * A method of a class of the JDK's that a copy calls on its way back.
     *
     * <p>Not a {@link Method}: JVM(17) makes a class of each that is called for the sixteenth time
     * ({@code sun.reflect.inflationThreshold}), which may be in a copy, and takes milliseconds.
     */
    static MethodHandle handle(Class<?> owner, String name, Class<?>... parameters)
            throws ReflectiveOperationException {
        MethodHandle handle = MethodHandles.lookup().unreflect(method(owner, name, parameters));
        return handle.asType(handle.type().generic());
    }

    /** Calls a method with its target and one argument, and throws what it throws. */
    static Object call(MethodHandle handle, Object target, Object argument) throws Exception {
        try {
            return (Object) handle.invokeExact(target, argument);
        } catch (Throwable e) {
            throw exception(e);
        }
    }

    /** The same for a static method with one argument. */
    static Object call(MethodHandle handle, Object argument) throws Exception {
        try {
            return (Object) handle.invokeExact(argument);
        } catch (Throwable e) {
            throw exception(e);
        }
    }

    /** The same for a static method without any. */
    static Object call(MethodHandle handle) throws Exception {
        try {
            return (Object) handle.invokeExact();
        } catch (Throwable e) {
            throw exception(e);
        }
    }

    private static Exception exception(Throwable thrown) {
        if (thrown instanceof Error error) {
            throw error;
        }
        return thrown instanceof Exception exception
                ? exception
                : new IllegalStateException(thrown);
    }

    /** Calls a method, and throws what it throws. */
    static Object call(Method method, Object target, Object... arguments) throws Exception {
        try {
            return method.invoke(target, arguments);
        } catch (InvocationTargetException e) {
            if (e.getCause() instanceof Exception cause) {
                throw cause;
            }
            throw e;
        }
    }
}
